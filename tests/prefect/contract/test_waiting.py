"""Waiting for slots, on this machine and on a server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

import localconc.asyncio
from localconc import create_limit, delete_limit, ensure_limit, read_limit, update_limit
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError, LocalconcError
from localconc.sync import acquire, concurrency
from tests.kit.processes import wait_until
from tests.prefect.contract.conftest import Waiting


class Waiter:
    """A thread that enters a block, tells so, and leaves it at once; or notes what was raised in its place."""

    def __init__(self, name: str, **options: Any) -> None:
        self.inside = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._wait, args=(name, options))
        self._thread.start()

    def _wait(self, name: str, options: dict[str, Any]) -> None:
        try:
            with concurrency(name, **options):
                self.inside.set()
        except LocalconcError as error:
            self.error = error

    def finish(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


def test_a_waiter_gets_the_slots_that_are_released(name: str, waiting: Waiting) -> None:
    ensure_limit(name, 1)
    with concurrency(name):
        waiter = Waiter(name)
        wait_until(lambda: waiting() == 1)
        assert not waiter.inside.is_set()
    waiter.finish()
    assert waiter.inside.is_set()


def test_an_occupancy_tells_how_long_it_waited(name: str, waiting: Waiting) -> None:
    ensure_limit(name, 1)
    waited: list[float] = []

    def wait() -> None:
        with concurrency(name) as occupancy:
            waited.append(occupancy.waited_seconds)

    held = acquire(name)
    begun = time.monotonic()
    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: waiting() == 1)
    time.sleep(0.2)
    held.release()
    thread.join(20)
    assert 0.2 <= waited[0] <= time.monotonic() - begun


def test_the_time_is_up_when_the_time_out_says(name: str) -> None:
    ensure_limit(name, 1)
    with concurrency(name):
        begun = time.monotonic()
        message = r"timed out after 0.7 second\(s\)"
        with pytest.raises(AcquireConcurrencySlotTimeoutError, match=message), concurrency(name, timeout_seconds=0.7):
            pass
        assert 0.7 <= time.monotonic() - begun < 3


def test_a_time_out_of_0_tries_once(name: str) -> None:
    ensure_limit(name, 1)
    tries_once = concurrency(name, timeout_seconds=0)
    with concurrency(name, timeout_seconds=0), pytest.raises(AcquireConcurrencySlotTimeoutError), tries_once:
        pass


def test_a_task_that_waits_times_out(name: str) -> None:
    ensure_limit(name, 1)

    async def main() -> None:
        async with localconc.asyncio.concurrency(name):
            with pytest.raises(AcquireConcurrencySlotTimeoutError):
                async with localconc.asyncio.concurrency(name, timeout_seconds=0.3):
                    pass

    asyncio.run(main())


def test_without_retries_a_call_tries_once(name: str) -> None:
    ensure_limit(name, 1)
    tries_once = concurrency(name, max_retries=0)
    with concurrency(name), pytest.raises(ConcurrencySlotAcquisitionError, match="no retries"), tries_once:
        pass


def test_a_limit_of_0_makes_requests_wait_until_it_is_raised(name: str, waiting: Waiting) -> None:
    ensure_limit(name, 0)
    waiter = Waiter(name)
    wait_until(lambda: waiting() == 1)
    update_limit(name, limit=1)
    waiter.finish()
    assert waiter.inside.is_set()


@pytest.mark.parametrize("raise_to", [ensure_limit, lambda name, limit: update_limit(name, limit=limit)])
def test_a_limit_that_is_raised_admits_all_that_fit(
    raise_to: Callable[[str, int], object], name: str, waiting: Waiting
) -> None:
    ensure_limit(name, 0)
    waiters = [Waiter(name) for _ in range(3)]
    wait_until(lambda: waiting() == 3)
    raise_to(name, 3)
    for waiter in waiters:
        waiter.finish()
        assert waiter.inside.is_set()


@pytest.mark.parametrize(
    "change",
    [
        delete_limit,
        lambda name: update_limit(name, active=False),
        lambda name: update_limit(name, name=f"{name}-new"),
        lambda name: update_limit(name, active_slots=0),
    ],
    ids=["delete", "disable", "rename", "forget the holders"],
)
def test_a_waiter_is_answered_as_if_it_had_just_called(
    change: Callable[[str], object], name: str, waiting: Waiting
) -> None:
    create_limit(name, 1, active_slots=1)
    waiter = Waiter(name)
    wait_until(lambda: waiting() == 1)
    change(name)
    waiter.finish()
    assert waiter.inside.is_set()


def test_a_strict_waiter_is_refused_when_the_limit_is_disabled(name: str, waiting: Waiting) -> None:
    create_limit(name, 1, active_slots=1)
    waiter = Waiter(name, strict=True)
    wait_until(lambda: waiting() == 1)
    update_limit(name, active=False)
    waiter.finish()
    assert isinstance(waiter.error, ConcurrencySlotAcquisitionError)


def test_a_waiter_is_refused_when_the_limit_becomes_too_small(name: str, waiting: Waiting) -> None:
    ensure_limit(name, 2)
    with concurrency(name):
        waiter = Waiter(name, occupy=2)
        wait_until(lambda: waiting() == 1)
        update_limit(name, limit=1)
        waiter.finish()
    assert isinstance(waiter.error, ConcurrencySlotAcquisitionError)


def test_a_lowered_limit_takes_nothing_from_a_holder_and_admits_none_until_enough_came_back(name: str) -> None:
    ensure_limit(name, 3)
    holders = [acquire(name) for _ in range(3)]
    update_limit(name, limit=1)
    assert read_limit(name).active_slots == 3
    for holder in holders:
        with pytest.raises(TimeoutError), concurrency(name, timeout_seconds=0):
            pass
        holder.release()
    with concurrency(name, timeout_seconds=0):
        pass


def test_a_time_out_error_names_the_limit(name: str) -> None:
    with concurrency(name, limit=1), pytest.raises(AcquireConcurrencySlotTimeoutError) as raised:
        concurrency(name, timeout_seconds=0).__enter__()
    assert (raised.value.names, raised.value.requests_ahead) == ((name,), 0)
    assert name in str(raised.value)


def test_a_cancelled_task_leaves_nothing_behind(name: str, waiting: Waiting) -> None:
    ensure_limit(name, 1)

    async def wait() -> None:
        async with localconc.asyncio.concurrency(name):
            pass

    async def main() -> None:
        async with localconc.asyncio.concurrency(name):
            task = asyncio.create_task(wait())
            await asyncio.to_thread(wait_until, lambda: waiting() == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert read_limit(name).active_slots == 0


def test_a_crowd_never_exceeds_the_limit(name: str) -> None:
    ensure_limit(name, 2)
    lock, inside, peaks = threading.Lock(), [0], [0]
    arrivals, pair = count(), threading.Barrier(2)

    def work() -> None:
        for _ in range(3):
            with concurrency(name):
                with lock:
                    inside[0] += 1
                    peaks[0] = max(peaks[0], inside[0])
                    is_early = next(arrivals) < 2
                if is_early:
                    pair.wait(60)  # the first two are inside together, however slow the server is
                with lock:
                    inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert peaks == [2]
    wait_until(lambda: read_limit(name).active_slots == 0)
