"""Stopped processes: time-outs hold, others go on, and nobody who is merely slow loses a slot."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localconc import create_limit, pause_limit, resume_limit
from localconc.errors import AcquireConcurrencySlotTimeoutError
from localconc.sync import concurrency, rate_limit
from tests.kit.processes import stop

from .inspection import assert_sound, held, wait_until, waiting

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")

LOOP = """
import sys
from localconc.sync import concurrency
print("ready", flush=True)
while True:
    with concurrency("gate"):
        pass
"""

HOLD = """
import sys
from localconc.sync import concurrency
with concurrency("gate"):
    print("in", flush=True)
    sys.stdin.read()
"""

WAIT_FOR_RATE = """
import sys
from localconc.sync import rate_limit
print("ready", flush=True)
rate_limit("rate", 3)
"""


class Program:
    """A process that runs a text."""

    def __init__(self, text: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.end()


def stop_at_random(programs: list[Program], home: Path, rounds: int) -> int:
    """Stop one that is busy in the store, again and again; returns how often that held up the store itself."""
    create_limit("gate", 1)
    create_limit("free", 5)
    programs += [Program(LOOP), Program(LOOP)]
    seed = int(os.environ.get("LOCALCONC_TEST_SEED", random.randrange(2**32)))
    print(f"LOCALCONC_TEST_SEED={seed}")
    generator = random.Random(seed)
    held_up = 0
    for _ in range(rounds):
        time.sleep(generator.uniform(0.0, 0.004))  # the moment is the subject, not a guess at when something is done
        victim = generator.choice(programs)
        victim.stop()
        begun = time.monotonic()
        try:
            with concurrency("free", timeout_seconds=0.1):
                pass
        except AcquireConcurrencySlotTimeoutError:
            held_up += 1
        assert time.monotonic() - begun < 3, "a time-out was not kept"
        victim.go_on()
        with concurrency("gate", timeout_seconds=10):
            assert held(home, "gate") <= 1
    assert_sound(home)
    return held_up


def test_timeouts_hold_while_another_process_is_stopped_anywhere(home_directory: Path, programs: list[Program]) -> None:
    stop_at_random(programs, home_directory, 25)


@pytest.mark.sweep
def test_timeouts_hold_while_another_process_is_stopped_anywhere_many_times(
    home_directory: Path, programs: list[Program], capsys: pytest.CaptureFixture[str]
) -> None:
    held_up = stop_at_random(programs, home_directory, 400)
    with capsys.disabled():
        print(f"\n400 stops, {held_up} of them inside the store's lock")


def test_a_stopped_holder_keeps_its_slot(home_directory: Path, programs: list[Program]) -> None:
    create_limit("gate", 1)
    programs.append(Program(HOLD))
    stop(programs[0].process.pid)
    with pytest.raises(AcquireConcurrencySlotTimeoutError, match=str(programs[0].process.pid)):
        concurrency("gate", timeout_seconds=0.3).__enter__()
    programs[0].end()
    block = concurrency("gate", timeout_seconds=5)
    assert block.__enter__().waited_seconds < 4
    block.__exit__(None, None, None)
    programs.clear()


def test_a_stopped_process_first_in_line_for_a_rate_does_not_hold_up_others(
    home_directory: Path, programs: list[Program]
) -> None:
    create_limit("rate", 3, slot_decay_per_second=3.0)
    rate_limit("rate", 3)
    pause_limit("rate", 60)  # until it waits
    programs.append(Program(WAIT_FOR_RATE))
    wait_until(lambda: waiting(home_directory), "it waits")
    stop(programs[0].process.pid)
    resume_limit("rate")
    begun = time.monotonic()
    rate_limit("rate", 1, timeout_seconds=10)
    # one second until its three have room, a third of a second until one of them has drained, and at most one more
    assert time.monotonic() - begun < 1.0 + 1 / 3 + 1.0 + 3.0


#: Does to the index of the log what SQLite has done when a process is stopped at one of two places in it.
INSIDE_THE_INDEX = """
import fcntl, mmap, os, sqlite3, struct, sys
database, place = sys.argv[1:]
connection = sqlite3.connect(database, isolation_level=None)
descriptor = os.open(database + "-shm", os.O_RDWR)
words = memoryview(mmap.mmap(descriptor, 136)).cast("I")
if place == "header":  # it has the writer's lock, and has changed one of the two copies
    connection.execute("BEGIN IMMEDIATE")
    words[2] += 1
else:  # it has the lock of a mark, and has set the mark
    fcntl.fcntl(descriptor, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 127, 1, 0))
    words[29] = words[4]
print("in", flush=True)
sys.stdin.read()
if place == "header":
    words[2] -= 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the layout of a lock is that of Linux")
@pytest.mark.parametrize("place", ["header", "mark"])
def test_a_process_stopped_inside_the_index_of_the_log_holds_up_nobody_beyond_a_timeout(
    home_directory: Path, place: str
) -> None:
    create_limit("free", 5)
    with concurrency("free"):
        pass
    stopped = _inside_the_index(home_directory, place)
    try:
        begun = time.monotonic()
        with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency("free", timeout_seconds=0.2):
            pass
        assert time.monotonic() - begun < 8, "SQLite has waited: it does for ten seconds each time"
        stopped.communicate(timeout=60)
        with concurrency("free", timeout_seconds=20):
            pass
    finally:
        stopped.kill()
        stopped.wait()
    assert_sound(home_directory)


@pytest.mark.skipif(sys.platform != "linux", reason="the layout of a lock is that of Linux")
def test_a_process_killed_between_the_two_copies_of_the_header_holds_up_nobody(home_directory: Path) -> None:
    create_limit("free", 5)
    killed = _inside_the_index(home_directory, "header")
    killed.kill()
    killed.communicate(timeout=60)
    with concurrency("free", timeout_seconds=5):
        assert held(home_directory, "free") == 1
    assert_sound(home_directory)


def _inside_the_index(home: Path, place: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", INSIDE_THE_INDEX, str(home / "localconc.db"), place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process
