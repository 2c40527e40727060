"""Clocks that jump, reboots and suspends: they neither stall nor burst a limit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localconc import create_limit, read_limit
from localconc._engine import registry
from localconc.errors import AcquireConcurrencySlotTimeoutError
from localconc.sync import concurrency, rate_limit
from tests.kit.engines import kill

from .inspection import assert_sound, held
from .simulation import VirtualClock

HOURS = 3600.0


class MovedClock(VirtualClock):
    """A machine whose wall clock is set and which is rebooted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 1_700_000_000.0
        self.boot = "first"

    def wall(self) -> float:
        return self.offset + self.time

    def boot_identity(self) -> str:
        return self.boot

    def pause(self, mailbox: object, until: float | None, watched_fd: int | None) -> None:
        self.time = self.time + 0.05 if until is None else max(self.time, until)

    def reboot(self, off_seconds: float) -> None:
        """Start anew: the clock since boot begins again, the wall clock goes on."""
        kill(registry.current())
        registry.forget_all()
        self.offset += self.time + off_seconds - 1.0
        self.time = 1.0
        self.boot += "'"


@pytest.fixture
def clock() -> Iterator[MovedClock]:
    clock = MovedClock()
    registry.use_clock(clock)
    yield clock
    registry.use_clock(None)


@pytest.mark.parametrize("hours", [-5, -1, 1, 5, 24 * 400])
def test_a_step_of_the_wall_clock_changes_nothing_about_a_rate(clock: MovedClock, hours: int) -> None:
    create_limit("rate", 2, slot_decay_per_second=1.0)
    rate_limit("rate", 2)
    clock.offset += hours * HOURS
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit("rate", timeout_seconds=0)
    before = clock.time
    rate_limit("rate")
    assert clock.time - before == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_step_of_the_wall_clock_changes_nothing_about_a_timeout(clock: MovedClock, hours: int) -> None:
    create_limit("gate", 1)
    with concurrency("gate"):
        clock.offset += hours * HOURS
        before = clock.time
        with pytest.raises(AcquireConcurrencySlotTimeoutError):
            concurrency("gate", timeout_seconds=3).__enter__()
        assert clock.time - before == pytest.approx(3.0, abs=0.1)


def test_after_a_reboot_held_slots_are_free(clock: MovedClock, home_directory: Path) -> None:
    create_limit("gate", 1)
    block = concurrency("gate")
    block.__enter__()
    clock.reboot(30.0)
    with concurrency("gate", timeout_seconds=0):
        assert held(home_directory) == 1
    block.__exit__(None, None, None)
    assert_sound(home_directory)


@pytest.mark.parametrize(("off_seconds", "expected"), [(0.0, 10), (4.0, 6), (60.0, 0), (-500.0, 10)])
def test_after_a_reboot_decay_goes_on_from_the_wall_clock(clock: MovedClock, off_seconds: float, expected: int) -> None:
    create_limit("rate", 10, slot_decay_per_second=1.0)
    rate_limit("rate", 10)
    clock.reboot(off_seconds)
    assert read_limit("rate").active_slots == expected


def test_a_suspend_counts_as_time(clock: MovedClock) -> None:
    create_limit("rate", 1, slot_decay_per_second=0.001)
    rate_limit("rate")
    clock.time += 1001.0
    rate_limit("rate", timeout_seconds=0)


FAKED = """
import time
from localconc import create_limit
from localconc.sync import rate_limit
create_limit("rate", 2, slot_decay_per_second=2.0)
begun = time.monotonic()
for _ in range(6):
    rate_limit("rate", timeout_seconds=20)
print(time.monotonic() - begun)
"""


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
@pytest.mark.parametrize("step", ["-5h", "+5h"])
def test_a_process_with_another_wall_clock_keeps_to_the_rate(home_directory: Path, step: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DONT_FAKE_MONOTONIC": "1"}
    program = ["faketime", "-f", step, sys.executable, "-c", FAKED]
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert 1.8 < float(ended.stdout) < 4.0
