"""Real processes that do one thing with limits, and say when."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 30.0

spawn = multiprocessing.get_context("spawn")


class Worker:
    """A process that acquires when it is started, says so, and holds until it is told to leave."""

    def __init__(self, names: Any, method: str = "spawn", **options: Any) -> None:
        context = multiprocessing.get_context(method)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_hold, args=(theirs, os.environ["LOCALCONC_HOME"], names, options))
        self.process.start()
        theirs.close()
        assert self.hear() == "started"

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def hear(self, timeout_seconds: float = PATIENCE_SECONDS) -> Any:
        """The next thing it says: "started", ("in", time), ("out", time) or ("error", type, text)."""
        assert self.pipe.poll(timeout_seconds), f"worker {self.process.pid} says nothing"
        return self.pipe.recv()

    def wait_inside(self) -> float:
        """When it got its slots, on the monotonic clock that all processes share."""
        said = self.hear()
        assert said[0] == "in", said
        return float(said[1])

    def is_silent(self) -> bool:
        return not self.pipe.poll(0)

    def leave(self) -> None:
        self.pipe.send("leave")

    def finish(self) -> None:
        self.leave()
        assert self.hear()[0] == "out"
        self.process.join(PATIENCE_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(PATIENCE_SECONDS)


def _hold(pipe: Connection, home: str, names: Any, options: dict[str, Any]) -> None:
    os.environ["LOCALCONC_HOME"] = home  # a fork server lives on from test to test, with the home of the first
    from localconc.sync import concurrency

    pipe.send("started")
    try:
        with concurrency(names, **options):
            pipe.send(("in", time.monotonic()))
            pipe.recv()
        pipe.send(("out", time.monotonic()))
    except Exception as error:
        pipe.send(("error", type(error).__name__, str(error)))


@contextmanager
def crew() -> Iterator[list[Worker]]:
    """A list to put workers in; whoever still lives at the end is killed."""
    workers: list[Worker] = []
    try:
        yield workers
    finally:
        for worker in workers:
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join(PATIENCE_SECONDS)
            worker.pipe.close()


def wait_until(condition: Any, timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Look again and again until it is so: for what another process does and nobody announces."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {condition}"
        time.sleep(0.005)


def peak_overlap(intervals: list[tuple[float, float]]) -> int:
    """How many of the intervals overlap at most, by the workers' own log."""
    moments = sorted([(begin, 1) for begin, _ in intervals] + [(end, -1) for _, end in intervals])
    overlap = peak = 0
    for _, step in moments:
        overlap += step
        peak = max(peak, overlap)
    return peak


def stop(pid: int) -> None:
    """Stop a process as Ctrl-Z does, but not in the middle of a transaction: while it is stopped there, nobody writes.

    A process whose change can be seen may still have the lock of the store.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        os.kill(pid, signal.SIGSTOP)
        while process_state(pid) not in ("T", ""):
            assert time.monotonic() < deadline, f"process {pid} does not stop"
            time.sleep(0.001)
        if _is_writable():
            return
        assert time.monotonic() < deadline, f"process {pid} is always in the middle of a transaction"
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.001)


def process_state(pid: int) -> str:
    """The letter of a process's state; empty once it is gone, and where the system has no such files."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _is_writable() -> bool:
    path = Path(os.environ["LOCALCONC_HOME"], "localconc.db")
    with closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as store:
        try:
            store.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        store.execute("ROLLBACK")
        return True
