"""What every test stands on: a home of its own, and a watch that nothing is left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from localconc._engine import registry

pytest_plugins = ["pytester"]

# In the background of a shell, this signal is ignored, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: The whole suite runs in so many processes, since most tests wait most of the time.
PROCESSES = 3


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in several processes; what the command line names runs in this one, unless `-n` is given."""
    is_whole = config.args_source is not pytest.Config.ArgsSource.ARGS and config.option.markexpr == "not sweep"
    if is_whole and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = PROCESSES
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def localconc_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home for this test and the processes that it starts."""
    directory = tmp_path / "home"
    monkeypatch.setenv("LOCALCONC_HOME", str(directory))
    yield directory
    registry.forget(directory)
