"""How tests of the pytest plugin start runs of their own: with our plugin and no others, which makes them quick."""

from __future__ import annotations

import pytest

#: Arguments for one process, and for two workers.
ALONE = ("-p", "localconc.pytest_plugin", "-p", "no:cacheprovider", "-rA")
WORKERS = ("-p", "localconc.pytest_plugin", "-p", "no:cacheprovider", "-p", "xdist", "-n2")


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of pytest that load only what they are told, and don't shorten their summaries."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "400")
