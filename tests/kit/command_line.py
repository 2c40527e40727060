"""The command line as users run it: a process of its own, on pipes or on a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 30.0

_SCRIPT = shutil.which("localconc", path=str(Path(sys.executable).parent))
COMMAND = [_SCRIPT] if _SCRIPT else [sys.executable, "-m", "localconc"]


def localconc(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, **options
    )


def ok(*arguments: str, **options: Any) -> str:
    """Run a command that works out; returns what it printed."""
    result = localconc(*arguments, **options)
    assert result.returncode == 0, result
    assert result.stderr == "", result
    return result.stdout


def as_json(*arguments: str) -> Any:
    return json.loads(ok(*arguments, "-o", "json"))


def fails(*arguments: str, status: int, **options: Any) -> str:
    """Run a command that fails as commands do: one line on stderr, nothing else; returns the line."""
    result = localconc(*arguments, **options)
    assert result.returncode == status, result
    assert result.stdout == "", result
    assert re.fullmatch(r"localconc: [^\n]+\n", result.stderr), result
    return result.stderr.strip()


def until(condition: Callable[[], Any]) -> Any:
    """Look again and again until something is so; returns it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.01)
    return found


class Running:
    """A `localconc` process that goes on, with its pipes."""

    def __init__(self, *arguments: str, command: list[str] | None = None, **options: Any) -> None:
        self.process = subprocess.Popen(
            [*(command or COMMAND), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write_line(self, text: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Let a command that reads a line come to its end; returns the exit status."""
        self.process.communicate("\n", timeout=PATIENCE_SECONDS)
        return self.process.returncode

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process.wait(PATIENCE_SECONDS)


@contextmanager
def running(*arguments: str, **options: Any) -> Iterator[Running]:
    started = Running(*arguments, **options)
    try:
        yield started
    finally:
        started.close()


#: Says its pid, and lives until a line comes in, or its stdin ends.
SAY_AND_READ = ("sh", "-c", "echo $$; read line")


@contextmanager
def holding(*names: str, options: tuple[str, ...] = ()) -> Iterator[Running]:
    """A `localconc run` whose command runs."""
    with running("run", ",".join(names), *options, "--", *SAY_AND_READ) as holder:
        assert holder.read_line().isdigit()
        yield holder


def process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state not in "ZX"
