"""How tests of the pytest plugin start runs of their own: with our plugin and no others, which makes them quick."""

from __future__ import annotations

import pytest

#: Arguments for one process, and for two workers.
ALONE = ("-p", "localconc.pytest_plugin", "-p", "no:cacheprovider", "-rA")
WORKERS = ("-p", "localconc.pytest_plugin", "-p", "no:cacheprovider", "-p", "xdist", "-n2")


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs of pytest load only what they are told, and not shorten their summaries.

    They know nothing of the worker that they may be started by, whose variables they would inherit.
    """
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "400")
