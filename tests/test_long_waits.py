"""What is told of a long wait while it lasts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from localconc import ensure_limit, read_waiters
from localconc.asyncio import concurrency as concurrency_of_tasks
from localconc.sync import concurrency, rate_limit
from localconc.testing import VirtualClock, hold, virtual_clock
from tests.kit.systems import needs_sockets

PATIENCE_SECONDS = 30.0


@pytest.fixture
def clock(localconc_home_directory: object) -> Iterator[VirtualClock]:
    with virtual_clock(autojump=False) as clock:
        yield clock


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="localconc")
    return caplog


def until(condition: object, lines: pytest.LogCaptureFixture | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, lines.messages if lines else "it did not come to be"
        time.sleep(0.001)


def wait_for_the_database(**options: float) -> threading.Thread:
    def wait() -> None:
        with concurrency("database", **options):  # type: ignore[arg-type]
            pass

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    until(lambda: read_waiters("database"))
    return thread


@needs_sockets
def test_a_long_wait_is_told_after_10_seconds_and_1_10_and_60_minutes(
    clock: VirtualClock, told: pytest.LogCaptureFixture
) -> None:
    with hold("database", limit=1) as held:
        thread = wait_for_the_database()
        for number, (moment, step) in enumerate([(10, 10), (60, 50), (600, 540), (3_600, 3_000)], 1):
            clock.advance(step - 0.5)
            clock.advance(0.5)
            until(lambda: len(told.messages) == number, told)  # noqa: B023
            assert told.messages[-1].startswith(
                f"localconc: waiting for 'database' for {moment} s: 'database': 1 of 1 in use, held by pid {held.pid} ("
            )
            assert told.messages[-1].endswith("; nobody ahead")
        assert {record.levelname for record in told.records} == {"INFO"}
        clock.advance(100_000)
        clock.advance(0)
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert len(told.messages) == 4


@needs_sockets
def test_a_shorter_wait_is_not_told(clock: VirtualClock, told: pytest.LogCaptureFixture) -> None:
    with hold("database", limit=1):
        thread = wait_for_the_database()
        clock.advance(9.9)
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert told.messages == []


def test_a_wait_that_slept_through_several_moments_is_told_once(
    clock: VirtualClock, told: pytest.LogCaptureFixture
) -> None:
    with hold("database", limit=1):
        thread = wait_for_the_database()
        clock.advance(700)
        until(lambda: told.messages, told)
    thread.join(PATIENCE_SECONDS)
    assert [message.partition(": '")[0] for message in told.messages] == ["localconc: waiting for 'database' for 700 s"]


@needs_sockets
def test_a_task_that_waits_for_long_is_told_of_too(clock: VirtualClock, told: pytest.LogCaptureFixture) -> None:
    async def wait() -> None:
        async with concurrency_of_tasks("database"):
            pass

    async def main() -> None:
        with hold("database", limit=1):
            task = asyncio.create_task(wait())
            while not read_waiters("database"):
                await asyncio.sleep(0)
            clock.advance(10)
            while not told.messages:
                await asyncio.sleep(0.001)
        await task

    asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS))
    assert [message.partition(": '")[0] for message in told.messages] == ["localconc: waiting for 'database' for 10 s"]


def test_a_wait_for_a_rate_says_when_the_next_slot_is_due(told: pytest.LogCaptureFixture) -> None:
    ensure_limit("api", 1, slot_decay_per_second=0.02)
    with virtual_clock() as clock:
        rate_limit("api")
        rate_limit("api")
        assert clock.elapsed == 50.0
    assert told.messages == [
        "localconc: waiting for 'api' for 10 s: 'api': 1 of 1 in use, the next 1 slot(s) are due in 40 s; nobody ahead"
    ]


def test_a_time_out_comes_to_the_second_whether_or_not_the_wait_is_told(told: pytest.LogCaptureFixture) -> None:
    with virtual_clock() as clock, hold("database", limit=1):
        with pytest.raises(TimeoutError), concurrency("database", timeout_seconds=100):
            pass
        assert clock.elapsed == 100.0
    assert [message.partition(": '")[0] for message in told.messages] == [
        "localconc: waiting for 'database' for 10 s",
        "localconc: waiting for 'database' for 60 s",
    ]


def test_a_clock_that_moves_by_itself_does_not_move_to_tell_of_a_wait(told: pytest.LogCaptureFixture) -> None:
    with virtual_clock() as clock:
        ensure_limit("database", 0)
        thread = wait_for_the_database()
        thread.join(0.1)
        assert clock.elapsed == 0.0
        ensure_limit("database", 1)
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert told.messages == []


def test_a_wait_is_silent_where_the_level_info_is_not_shown(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="localconc")
    with hold("database", limit=1):
        thread = wait_for_the_database()
        clock.advance(5_000)
    thread.join(PATIENCE_SECONDS)
    assert caplog.messages == []
