"""What every test stands on: a home of its own, and a watch that nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from localconc._engine import registry

pytest_plugins = ["pytester"]

# Without bytecode, every program that a test starts would compile all of localconc anew, and take twice as long.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# In the background of a shell, or under nohup, these signals are ignored, and what tests start would inherit that.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL), ("SIGQUIT", signal.SIG_DFL)):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), handler)


@pytest.fixture(autouse=True)
def localconc_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home for this test and the processes that it starts."""
    directory = tmp_path / "home"
    monkeypatch.setenv("LOCALCONC_HOME", str(directory))
    yield directory
    registry.forget(directory)
