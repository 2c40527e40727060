"""Tests of localconc. A package, so that none of its folders stands in for an installed package of the same name."""
