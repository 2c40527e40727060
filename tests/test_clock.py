"""The engine's time: the same for all processes of the machine, whatever a test does to the time of its own."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from localconc._engine.core import clock as clocks
from localconc._engine.core.clock import SystemClock

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such clocks")


def frozen() -> AbstractContextManager[Any]:
    freezegun = pytest.importorskip("freezegun")
    return freezegun.freeze_time("2001-01-01")  # type: ignore[no-any-return]


def travelled() -> AbstractContextManager[Any]:
    time_machine = pytest.importorskip("time_machine")
    return time_machine.travel(datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC), tick=False)  # type: ignore[no-any-return]


fakes = pytest.mark.parametrize("fake", [frozen, travelled])


@fakes
def test_a_test_that_moves_its_own_time_does_not_move_the_engines(fake: Callable[[], Any]) -> None:
    clock = SystemClock()
    wall = time.time()
    with fake():
        assert time.time() < wall - 86_400
        assert abs(clock.wall() - wall) < 10
        assert abs(clocks.wall() - wall) < 10
        before = clock.now()
        time.sleep(0.01)
        assert 0.01 <= clock.now() - before < 5


@fakes
def test_an_engine_that_is_loaded_in_a_moved_time_goes_by_the_real_one(fake: Callable[[], Any]) -> None:
    program = """
import contextlib, datetime, sys, time
wall = time.time()
moment = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc)
if sys.argv[1] == "frozen":
    from freezegun import freeze_time as fake
else:
    from time_machine import travel as fake
with fake(moment):
    from localconc._engine.core.clock import SystemClock
    inside = SystemClock().wall()
assert abs(inside - wall) < 10, inside - wall
assert abs(SystemClock().wall() - wall) < 10
"""
    fake()  # skips where it is not installed
    subprocess.run([sys.executable, "-c", program, fake.__name__], check=True)


@fakes
def test_a_task_pauses_as_long_as_it_should_in_a_frozen_time(fake: Callable[[], Any]) -> None:
    async def pause() -> float:
        clock = SystemClock()
        begun = clock.now()
        await clock.pause_task(asyncio.Event(), begun + 0.05)
        return clock.now() - begun

    with fake():
        assert 0.05 <= asyncio.run(pause()) < 5


@fakes
def test_a_timer_that_was_cancelled_calls_nobody(fake: Callable[[], Any]) -> None:
    async def cancel() -> list[str]:
        called: list[str] = []
        loop = asyncio.get_running_loop()
        timer = clocks.call_later(loop, 0.01, lambda: called.append("cancelled"))
        timer.cancel()
        timer.cancel()
        done = asyncio.Event()
        clocks.call_later(loop, 0.05, done.set)
        await done.wait()
        return called

    with fake():
        assert asyncio.run(cancel()) == []


def test_a_timer_of_a_loop_that_was_closed_harms_nobody() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    timer = clocks._ThreadTimer(loop, 0.0, lambda: None)
    time.sleep(0.02)
    timer.cancel()


def test_a_task_pauses_until_its_event_is_set() -> None:
    async def pause() -> bool:
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(event.set)
        await SystemClock().pause_task(event, None)
        return event.is_set()

    assert asyncio.run(pause())


@linux
def test_the_time_is_the_one_since_the_machine_started() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = SystemClock().now() + clocks.boot_offset_seconds()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


@linux
def test_processes_in_another_time_namespace_agree_on_the_time() -> None:
    program = "from localconc._engine.core.clock import SystemClock; print(SystemClock().now())"
    words = ["unshare", "--time", "--boottime", "100000", "--fork", sys.executable, "-c", program]
    before = SystemClock().now()
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.skip(f"time namespaces can't be made here: {ran.stderr.strip()}")
    assert before <= float(ran.stdout) <= SystemClock().now()


@linux
def test_a_boot_has_an_identity() -> None:
    assert len(SystemClock().boot_identity()) == 36


@linux
def test_a_machine_without_a_boot_identity_has_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert SystemClock().boot_identity() == ""
