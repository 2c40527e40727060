"""Asking for Prefect's names where there is no Prefect."""

from __future__ import annotations

import sys

import pytest

from localconc.testing import replace_prefect


def test_a_missing_prefect_is_an_error_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect", None)
    with pytest.raises(ImportError, match=r"pip install 'localconc\[prefect\]'"):
        replace_prefect().__enter__()
