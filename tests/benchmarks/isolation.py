"""A benchmark runs in a process of its own: nothing of it is left for the next one."""

import importlib
import os
import signal
import tempfile
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from tests.benchmarks.crew import SPAWN
from tests.benchmarks.report import Effort, Report

GRACE_SECONDS = 5.0


class BenchmarkError(Exception):
    """A benchmark failed, or did not come to its end."""


def run(name: str, effort: Effort, patience_seconds: float) -> Report:
    """Return what `tests.benchmarks.<name>.measure(effort)` reports; its processes are gone afterwards."""
    ours, theirs = SPAWN.Pipe()
    with tempfile.TemporaryDirectory(prefix="localconc-benchmark-") as directory:
        process = SPAWN.Process(target=_measure, args=(theirs, directory, name, effort))
        process.start()
        theirs.close()
        try:
            return _answer(ours, patience_seconds)
        finally:
            wait([process.sentinel], GRACE_SECONDS)
            _end(process)


def _answer(pipe: Connection, patience_seconds: float) -> Report:
    if not pipe.poll(patience_seconds):
        raise BenchmarkError(f"no answer within {patience_seconds:.0f} s")
    try:
        answer = pipe.recv()
    except EOFError:
        raise BenchmarkError("it ended without an answer") from None
    if isinstance(answer, Report):
        return answer
    raise BenchmarkError(answer)


def _measure(pipe: Connection, directory: str, name: str, effort: Effort) -> None:
    os.environ["TMPDIR"] = tempfile.tempdir = directory  # what this process and its workers leave there goes with it
    if hasattr(os, "setsid"):
        os.setsid()
    try:
        pipe.send(importlib.import_module(f"tests.benchmarks.{name}").measure(effort))
    except Exception:
        pipe.send(traceback.format_exc())


def _end(process: BaseProcess) -> None:
    """End the process and whichever of its workers are left: they are one session, named after it until it is joined.

    Not by SIGKILL, which the one among them that cleans up shared semaphores could not ignore.
    """
    if hasattr(os, "killpg") and process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    process.kill()
    process.join()
