"""Worker processes that do what they are told, one call at a time, and line up with each other."""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier, Event
from types import TracebackType
from typing import Any, Self

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_SECONDS = 60.0

_pipe: Connection | None = None
_barrier: Barrier | None = None
_stop: Event | None = None


class WorkerError(Exception):
    """A worker's call failed; the text is the worker's traceback."""


def announce(news: object = None) -> None:
    """Within a worker's call: tell the crew's owner something before the call ends."""
    assert _pipe is not None
    _pipe.send(("announced", news))


def line_up() -> None:
    """Within a worker's call: go on when the whole crew stands here."""
    assert _barrier is not None
    _barrier.wait(PATIENCE_SECONDS)


def told_to_stop() -> bool:
    """Within a worker's call: whether the crew's owner wants it to end."""
    assert _stop is not None
    return _stop.is_set()


def _work(
    pipe: Connection,
    barrier: Barrier,
    stop: Event,
    prepare: Callable[..., object] | None,
    args: tuple[Any, ...],
) -> None:
    global _pipe, _barrier, _stop
    _pipe, _barrier, _stop = pipe, barrier, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare is not None:
        prepare(*args)
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        if order is None:
            return
        answer = _carry_out(*order)
        with suppress(OSError):  # the owner may be gone, or want no answer any more
            pipe.send(answer)


def _carry_out(call: Callable[..., object], args: tuple[Any, ...]) -> tuple[str, object]:
    try:
        return "done", call(*args)
    except Exception:
        return "failed", traceback.format_exc()


class Worker:
    """One process of a crew, seen from outside."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process.pid is not None
        return self.process.pid

    def start(self, call: Callable[..., object], *args: Any) -> None:
        """Have the worker begin a call."""
        self.pipe.send((call, args))

    def news(self) -> Any:
        """Wait for what the call announces."""
        return self._hear("announced")

    def result(self) -> Any:
        """Wait for the call's end."""
        return self._hear("done")

    def call(self, call: Callable[..., object], *args: Any) -> Any:
        """Have the worker do this, and wait for it."""
        self.start(call, *args)
        return self.result()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self.process.kill()
        self.process.join()

    def dismiss(self) -> None:
        """Let the process end; one that does not is killed."""
        if self.process.is_alive():
            with suppress(OSError):
                self.pipe.send(None)
        self.pipe.close()

    def bury(self, patience_seconds: float) -> None:
        """See the process gone."""
        self.process.join(patience_seconds)
        if self.process.is_alive():
            self.kill()

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far."""
        return cpu_seconds(self.pid)

    def _hear(self, expected: str) -> Any:
        if not self.pipe.poll(PATIENCE_SECONDS):
            raise WorkerError(f"worker {self.pid} said nothing for {PATIENCE_SECONDS:.0f} s")
        kind, value = self.pipe.recv()
        if kind == "failed":
            raise WorkerError(value)
        assert kind == expected, f"worker {self.pid} {kind} where {expected} was expected"
        return value


class Crew:
    """Workers for the length of a `with` block; none outlives it."""

    def __init__(self, size: int, prepare: Callable[..., object] | None = None, *args: Any) -> None:
        self.workers: Sequence[Worker] = ()
        self._size = size
        self._prepare = prepare
        self._args = args
        self._barrier = SPAWN.Barrier(size)
        self._stop = SPAWN.Event()

    def __enter__(self) -> Self:
        self.workers = [self._hire() for _ in range(self._size)]
        for worker in self.workers:
            worker.start(os.getpid)
        for worker in self.workers:
            worker.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.dismiss()
        for worker in self.workers:
            worker.bury(5.0 if error is None else 0.5)

    def call(self, call: Callable[..., object], *args: Any) -> list[Any]:
        """Have every worker do this at the same time."""
        for worker in self.workers:
            worker.start(call, *args)
        awaited = list(self.workers)
        results: dict[Worker, Any] = {}
        while awaited:
            for worker in _first_to_speak(awaited):  # a failure of any is heard before the others' patience ends
                results[worker] = worker.result()
                awaited.remove(worker)
        return [results[worker] for worker in self.workers]

    def stop(self) -> None:
        """Tell the calls that ask for it to end."""
        self._stop.set()

    def _hire(self) -> Worker:
        ours, theirs = SPAWN.Pipe()
        args = (theirs, self._barrier, self._stop, self._prepare, self._args)
        process = SPAWN.Process(target=_work, args=args)
        process.start()
        theirs.close()
        return Worker(process, ours)


def _first_to_speak(workers: Sequence[Worker]) -> list[Worker]:
    speaking = wait([worker.pipe for worker in workers], PATIENCE_SECONDS)
    if not speaking:
        raise WorkerError(f"{len(workers)} workers said nothing for {PATIENCE_SECONDS:.0f} s")
    return [worker for worker in workers if worker.pipe in speaking]


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process so far, to the nanosecond: Linux has a clock for each process."""
    return time.clock_gettime((~pid << 3) | 2)
