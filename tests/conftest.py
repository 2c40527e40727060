"""What every test stands on: a home of its own, and a watch that nothing is left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from localconc._engine import homes

pytest_plugins = ["pytester"]

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # begun in the background of a shell: what tests start inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def localconc_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home for this test and the processes that it starts."""
    directory = tmp_path / "home"
    monkeypatch.setenv("LOCALCONC_HOME", str(directory))
    yield directory
    homes.forget(directory)
