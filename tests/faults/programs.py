"""Programs that tests start: each reports in lines, does what it is told, and ends with its test."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.kit.processes import stop

#: How long a test waits for what should come at once, on a machine that is busy with other things.
PATIENCE_SECONDS = 30.0

_PUPPET = Path(__file__).with_name("puppet.py")


class Program:
    """A process with pipes; whoever waits for its words waits no longer than told."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the program)
        options.setdefault("env", {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
        options.setdefault("stdin", subprocess.PIPE)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, **options)
        self._received = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def hear(self, timeout_seconds: float = PATIENCE_SECONDS) -> str:
        """Return its next line."""
        line = self._next_line(timeout_seconds)
        assert line is not None, f"it said nothing for {timeout_seconds} s. {self._condition()}"
        return line

    def is_silent_for(self, seconds: float) -> bool:
        """Return whether it says nothing for that long; what it says is kept for `hear`."""
        line = self._next_line(seconds)
        if line is not None:
            self._received = line.encode() + b"\n" + self._received
        return line is None

    def _next_line(self, timeout_seconds: float) -> str | None:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + timeout_seconds
        while b"\n" not in self._received:
            with selectors.DefaultSelector() as selector:
                selector.register(descriptor, selectors.EVENT_READ)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
            received = os.read(descriptor, 65536)
            assert received, f"it ended. {self._condition()}"
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace").strip()

    def _condition(self) -> str:
        return f"Status {self.process.poll()}, errors: {self.errors()[-3000:] or 'none'}"

    def say(self, text: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def finish(self, timeout_seconds: float = PATIENCE_SECONDS) -> str:
        """Close its input and wait for its end, which must be a good one; return what it still said."""
        status, rest = self.end(timeout_seconds)
        assert status == 0, self._condition()
        return rest

    def end(self, timeout_seconds: float = PATIENCE_SECONDS) -> tuple[int, str]:
        """Close its input and wait for its end; return its status and what it still said."""
        try:
            rest, _ = self.process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout_seconds} s. {self._condition()}") from None
        return self.process.returncode, (self._received + rest).decode(errors="replace").strip()

    def stop(self) -> None:
        """Stop it as Ctrl-Z does, and wait until it is."""
        stop(self.pid)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class Puppet(Program):
    """A process that does one thing after another as it is told (see `puppet`), and answers."""

    def __init__(self, *, interpreter: str = sys.executable, prefix: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__([*prefix, interpreter, str(_PUPPET)], **options)
        self.own_pid = self.answer()  # in its own numbering of processes

    def tell(self, order: str, *arguments: Any, **options: Any) -> None:
        """Give an order without waiting for the answer."""
        self.say(json.dumps([order, arguments, options]))

    def answer(self, timeout_seconds: float = PATIENCE_SECONDS) -> Any:
        return json.loads(self.hear(timeout_seconds))

    def do(self, order: str, *arguments: Any, patience_seconds: float = PATIENCE_SECONDS, **options: Any) -> Any:
        """Give an order and return the answer: "done" or what was asked for, or the name of an error and its text."""
        self.tell(order, *arguments, **options)
        return self.answer(patience_seconds)

    def enters(self, names: str | list[str], **options: Any) -> bool:
        """Return whether it gets in, within its time-out (at once where none is given)."""
        options.setdefault("timeout_seconds", 0)
        answer = self.do("enter", names, **options)
        if answer == "done":
            return True
        assert answer[0] == "AcquireConcurrencySlotTimeoutError", answer
        return False

    def must_enter(self, names: str | list[str], **options: Any) -> None:
        options.setdefault("timeout_seconds", 5)
        answer = self.do("enter", names, **options)
        assert answer == "done", answer

    def begins_to_enter(self, names: str | list[str], label: str = "", **options: Any) -> None:
        """Let a thread of it ask; `outcome` tells what comes of it."""
        assert self.do("begin", label or str(names), "enter", names, **options) == "done"

    def outcome(self, label: str, timeout_seconds: float = PATIENCE_SECONDS) -> Any:
        """Wait for what comes of an order that a thread carries out."""
        return until(
            lambda: self.do("outcome", label), f"{label} in process {self.pid} has an outcome", timeout_seconds
        )

    def leave(self, names: str | list[str]) -> None:
        answer = self.do("leave", names)
        assert answer == "done", answer

    def evaluate(self, expression: str, **options: Any) -> Any:
        answer = self.do("evaluate", expression, **options)
        assert not (isinstance(answer, list) and answer and str(answer[0]).endswith("Error")), answer
        return answer

    def run(self, code: str, **options: Any) -> Any:
        """Let it execute some lines; return what they leave in `result`."""
        return self.do("run", code, **options)


class Cast:
    """Starts programs, and ends those that still live at the end of the test."""

    def __init__(self) -> None:
        self._programs: list[Program] = []

    def python(self, code: str, *arguments: object, interpreter: str = sys.executable, **options: Any) -> Program:
        """Run Python code in a process of its own."""
        return self.command(interpreter, "-c", code, *map(str, arguments), **options)

    def command(self, *words: str, **options: Any) -> Program:
        program = Program(list(words), **options)
        self._programs.append(program)
        return program

    def puppet(self, **options: Any) -> Puppet:
        puppet = Puppet(**options)
        self._programs.append(puppet)
        return puppet

    def end(self) -> None:
        for program in self._programs:
            program.close()


@contextmanager
def cast() -> Iterator[Cast]:
    started = Cast()
    try:
        yield started
    finally:
        started.end()


def until(condition: Callable[[], Any], what: str, timeout_seconds: float = PATIENCE_SECONDS) -> Any:
    """Look again and again until something is so; return it."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.005)
    return found


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def rows(home: Path, table: str) -> int:
    """How many rows a table of the store has, seen past the library."""
    connection = sqlite3.connect(f"file:{home / 'localconc.db'}?mode=ro", uri=True, timeout=5)
    try:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)
    finally:
        connection.close()


def in_line(home: Path) -> int:
    """How many requests have a place in a queue."""
    return rows(home, "queue")
