"""Virtual time for tasks: it stands still while one of them works, and jumps when all of them wait."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from localconc import AcquireConcurrencySlotTimeoutError, ensure_limit
from localconc import asyncio as for_tasks
from localconc.sync import rate_limit
from localconc.testing import VirtualClock, hold, temporary_home, virtual_clock


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with temporary_home(), virtual_clock() as clock:
        yield clock


def test_tasks_share_the_time(clock: VirtualClock) -> None:
    async def take(times: int) -> None:
        for _ in range(times):
            await for_tasks.rate_limit("api", limit=5, slot_decay_per_second=1)

    async def main() -> None:
        await asyncio.gather(*(take(10) for _ in range(10)))

    asyncio.run(main())
    assert clock.elapsed == 95.0


def test_a_tasks_timeout_passes_at_once(clock: VirtualClock) -> None:
    ensure_limit("database", 1)

    async def main() -> None:
        async with for_tasks.concurrency("database"):
            pass
        with hold("database"), pytest.raises(AcquireConcurrencySlotTimeoutError):
            await for_tasks.concurrency("database", timeout_seconds=600).__aenter__()

    asyncio.run(main())
    assert clock.elapsed == 600.0


def _hold_while(work: Callable[[], Awaitable[object]], clock: VirtualClock) -> None:
    """A task holds the only slot while it works, another waits for it: no time-out passes before the work is done."""
    ensure_limit("database", 1)

    async def holder(inside: asyncio.Event) -> None:
        async with for_tasks.concurrency("database"):
            inside.set()
            await work()

    async def main() -> None:
        inside = asyncio.Event()
        task = asyncio.create_task(holder(inside))
        await inside.wait()
        async with for_tasks.concurrency("database", timeout_seconds=1):
            pass
        await task

    asyncio.run(main())
    assert clock.elapsed == 0.0


def test_a_task_at_work_is_not_overtaken_by_a_timeout(clock: VirtualClock) -> None:
    async def work() -> None:
        await asyncio.sleep(0.05)
        for _ in range(100):
            await asyncio.sleep(0)

    _hold_while(work, clock)


def test_a_thread_that_works_for_a_task_is_not_overtaken(clock: VirtualClock) -> None:
    ensure_limit("database", 1)

    async def holder(inside: asyncio.Event) -> None:
        async with for_tasks.concurrency("database"):
            inside.set()
            await asyncio.to_thread(time.sleep, 0.05)

    async def main() -> None:
        inside = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(holder(inside))
            await inside.wait()
            async with for_tasks.concurrency("database", timeout_seconds=1):
                pass

    asyncio.run(main())
    assert clock.elapsed == 0.0


def test_tasks_and_threads_share_one_time(clock: VirtualClock) -> None:
    """A task waits for a thread that takes slots, while another task takes some too."""
    ensure_limit("api", 1, slot_decay_per_second=1)

    async def main() -> None:
        await for_tasks.rate_limit("api")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(lambda: [rate_limit("api") for _ in range(5)]))
            for _ in range(5):
                await for_tasks.rate_limit("api")

    asyncio.run(main())
    assert clock.elapsed == 10.0


def test_tasks_that_hand_work_to_each_other_leave_no_gap(clock: VirtualClock) -> None:
    ensure_limit("database", 1)

    async def chain(before: asyncio.Event, after: asyncio.Event) -> None:
        await before.wait()
        after.set()

    async def main() -> None:
        async with for_tasks.concurrency("database"):
            pass
        for _ in range(10):
            links = [asyncio.Event() for _ in range(20)]
            async with asyncio.TaskGroup() as group:
                for before, after in itertools.pairwise(links):
                    group.create_task(chain(before, after))
                group.create_task(hold_until(links))
                async with for_tasks.concurrency("database", timeout_seconds=1):
                    pass

    async def hold_until(links: list[asyncio.Event]) -> None:
        async with for_tasks.concurrency("database"):
            links[0].set()
            await links[-1].wait()

    asyncio.run(main())
    assert clock.elapsed == 0.0


@pytest.mark.parametrize("is_default", [True, False])
def test_a_task_waits_for_a_pool_that_waits(clock: VirtualClock, is_default: bool) -> None:
    ensure_limit("api", 1, slot_decay_per_second=1)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await for_tasks.rate_limit("api")
        with ThreadPoolExecutor(1) as own:
            pool = None if is_default else own
            await loop.run_in_executor(pool, rate_limit, "api")
            await asyncio.gather(loop.run_in_executor(pool, rate_limit, "api"))

    asyncio.run(main())
    assert clock.elapsed == 2.0


def test_work_in_a_pool_of_ones_own_is_not_overtaken(clock: VirtualClock) -> None:
    async def work() -> None:
        with ThreadPoolExecutor(1) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 0.05)

    _hold_while(work, clock)


def test_a_task_waits_for_a_shielded_one(clock: VirtualClock) -> None:
    ensure_limit("api", 1, slot_decay_per_second=1)

    async def main() -> None:
        await for_tasks.rate_limit("api")
        await asyncio.shield(for_tasks.rate_limit("api"))

    asyncio.run(main())
    assert clock.elapsed == 1.0


async def _in_a_group(work: Awaitable[None]) -> None:
    async def run() -> None:
        await work

    async with asyncio.TaskGroup() as group:
        group.create_task(run())


@pytest.mark.parametrize(
    "delegate",
    [asyncio.gather, asyncio.shield, asyncio.ensure_future, _in_a_group, lambda work: asyncio.wait_for(work, 60)],
    ids=["gather", "shield", "task", "group", "wait_for"],
)
def test_work_that_a_holder_leaves_to_another_task_is_not_overtaken(
    clock: VirtualClock, delegate: Callable[[Awaitable[None]], Awaitable[object]]
) -> None:
    async def work() -> None:
        await delegate(asyncio.sleep(0.05))

    _hold_while(work, clock)


def test_loops_of_several_threads_share_the_time_and_do_not_keep_each_other_busy(clock: VirtualClock) -> None:
    ensure_limit("api", 1, slot_decay_per_second=1)

    async def main() -> None:
        for _ in range(5):
            await for_tasks.rate_limit("api")

    begun = time.monotonic()
    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.elapsed == 14.0
    assert time.monotonic() - begun < 5
