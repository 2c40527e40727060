"""What limits offer beyond admission, on a virtual clock: pauses, slot numbers, deadlocks, handles."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from localconc import DeadlockError, ensure_limit, pause_limit, read_limit, read_waiters, resume_limit
from localconc import asyncio as for_tasks
from localconc.sync import acquire, concurrency, rate_limit
from localconc.testing import VirtualClock, temporary_home, virtual_clock

PATIENCE_SECONDS = 20.0


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with temporary_home(), virtual_clock() as clock:
        yield clock


# ---- pauses ----------------------------------------------------------------------------------------------------------


def test_a_pause_passes_at_once_and_counts_its_whole_time(clock: VirtualClock) -> None:
    ensure_limit("api", 5, slot_decay_per_second=1)
    pause_limit("api", 60)
    rate_limit("api")
    assert clock.elapsed == 60.0
    assert read_limit("api").paused_until is None


def test_tasks_wait_for_the_end_of_a_pause(clock: VirtualClock) -> None:
    ensure_limit("database", 2)
    pause_limit("database", 30)

    async def use() -> None:
        async with for_tasks.concurrency("database"):
            assert clock.elapsed == 30.0

    async def main() -> None:
        await asyncio.gather(*(use() for _ in range(5)))

    asyncio.run(main())
    assert clock.elapsed == 30.0


def test_a_timeout_passes_before_the_end_of_a_pause(clock: VirtualClock) -> None:
    ensure_limit("database", 1)
    pause_limit("database", 60)
    with pytest.raises(TimeoutError, match="paused"):
        concurrency("database", timeout_seconds=10).__enter__()
    assert clock.elapsed == 10.0


def test_the_end_of_a_pause_is_told_in_the_time_of_the_clock(clock: VirtualClock) -> None:
    ensure_limit("database", 1)
    begun = pause_limit("database", 60).paused_until
    clock.advance(20)
    extended = pause_limit("database", 60).paused_until
    assert begun is not None
    assert extended is not None
    assert (extended - begun).total_seconds() == pytest.approx(20, abs=1e-3)


def test_a_pause_that_is_ended_lets_a_waiter_in_without_time_passing() -> None:
    with temporary_home(), virtual_clock(autojump=False) as clock:
        ensure_limit("database", 1)
        pause_limit("database", 60)
        thread = threading.Thread(target=_take_and_leave)
        thread.start()
        resume_limit("database")
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert clock.elapsed == 0.0


def _take_and_leave() -> None:
    with concurrency("database"):
        pass


# ---- slot numbers ----------------------------------------------------------------------------------------------------


def test_holders_at_the_same_virtual_time_have_different_numbers(clock: VirtualClock) -> None:
    ensure_limit("gpu", 2)
    with concurrency("gpu") as first, concurrency("gpu") as second:
        assert (first.numbers, second.numbers) == ((0,), (1,))


def test_a_waiter_gets_the_number_that_was_freed(clock: VirtualClock) -> None:
    ensure_limit("gpu", 2)
    ensure_limit("api", 1, slot_decay_per_second=0.1)
    numbers: list[tuple[int, ...]] = []

    def wait() -> None:
        with concurrency("gpu", timeout_seconds=60) as occupancy:
            numbers.append(occupancy.numbers_of("gpu"))

    with concurrency("gpu") as kept:
        leaves = acquire("gpu")
        assert (kept.numbers, leaves.numbers) == ((0,), (1,))
        thread = threading.Thread(target=wait)
        thread.start()
        rate_limit("api", 1)
        rate_limit("api", 1)  # ten seconds, in which the other one waits
        leaves.release()
        thread.join(PATIENCE_SECONDS)
    assert numbers == [(1,)]
    assert clock.elapsed == 10.0


# ---- deadlocks -------------------------------------------------------------------------------------------------------


def test_waiting_for_oneself_is_an_error_and_takes_no_time(clock: VirtualClock) -> None:
    ensure_limit("database", 1)
    with concurrency("database"), pytest.raises(DeadlockError, match="database"):
        concurrency("database").__enter__()
    assert clock.elapsed == 0.0


def test_waiting_for_oneself_with_an_end_is_a_timeout(clock: VirtualClock) -> None:
    ensure_limit("database", 1)
    with concurrency("database"), pytest.raises(TimeoutError):
        concurrency("database", timeout_seconds=5).__enter__()
    assert clock.elapsed == 5.0


def test_a_circle_of_threads_is_an_error_for_one_of_them(clock: VirtualClock) -> None:
    ensure_limit("left", 1)
    ensure_limit("right", 1)
    both_hold = threading.Barrier(2)
    stuck: list[DeadlockError] = []

    def take(first: str, second: str) -> None:
        with concurrency(first):
            both_hold.wait(PATIENCE_SECONDS)
            try:
                with concurrency(second):
                    pass
            except DeadlockError as error:
                stuck.append(error)

    threads = [threading.Thread(target=take, args=names) for names in (("left", "right"), ("right", "left"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert len(stuck) == 1
    assert clock.elapsed == 0.0


def test_a_circle_of_tasks_is_an_error_for_one_of_them(clock: VirtualClock) -> None:
    ensure_limit("left", 1)
    ensure_limit("right", 1)

    async def take(first: str, second: str, both_hold: asyncio.Barrier) -> bool:
        async with for_tasks.concurrency(first):
            await both_hold.wait()
            try:
                async with for_tasks.concurrency(second):
                    return False
            except DeadlockError:
                return True

    async def main() -> list[bool]:
        both_hold = asyncio.Barrier(2)
        return await asyncio.gather(take("left", "right", both_hold), take("right", "left", both_hold))

    assert sorted(asyncio.run(main())) == [False, True]
    assert clock.elapsed == 0.0


# ---- handles ---------------------------------------------------------------------------------------------------------


def test_a_handle_that_a_busy_thread_releases_is_waited_for(clock: VirtualClock) -> None:
    """The thread computes between the acquisition and the release: no time-out passes before it is done."""
    ensure_limit("licence", 1)
    held = threading.Event()

    def work() -> None:
        handle = acquire("licence")
        held.set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not read_waiters("licence"):
            assert time.monotonic() < deadline
        handle.release()

    thread = threading.Thread(target=work)
    thread.start()
    held.wait(PATIENCE_SECONDS)
    with acquire("licence", timeout_seconds=60):
        assert clock.elapsed == 0.0
    thread.join(PATIENCE_SECONDS)
