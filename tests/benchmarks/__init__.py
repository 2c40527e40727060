"""Benchmarks of localconc beside its peers: `python -m tests.benchmarks [name…] [--quick] [--write]`."""
