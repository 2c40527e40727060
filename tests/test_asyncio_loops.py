"""Many loops, in many threads; what a loop leaves behind when it is closed; forks."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from pathlib import Path

from localconc import create_limit, read_holders, read_waiters
from localconc._engine.waiting import dispatcher
from localconc.asyncio import concurrency
from tests.kit.processes import PATIENCE_SECONDS, wait_until
from tests.kit.systems import needs_fork
from tests.kit.tasks import assert_nothing_left, hold, turns, until_waiting


async def _pass_a_slot_round(tasks: int) -> None:
    async def take() -> None:
        async with concurrency("x"):
            await asyncio.sleep(0)

    await asyncio.gather(*(take() for _ in range(tasks)))


def test_many_loops_in_many_threads_share_a_limit(localconc_home_directory: Path) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(3):
                asyncio.run(asyncio.wait_for(_pass_a_slot_round(10), PATIENCE_SECONDS))
        except BaseException as failure:
            failures.append(failure)

    create_limit("x", 2)
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_nothing_left(localconc_home_directory)


def test_a_slot_goes_from_the_task_of_one_loop_to_the_task_of_another() -> None:
    create_limit("x", 1)
    order: list[str] = []

    async def second() -> None:
        async with concurrency("x"):
            order.append("second")

    async def first() -> None:
        async with concurrency("x"):
            thread.start()
            await until_waiting(1)
            order.append("first")

    thread = threading.Thread(target=asyncio.run, args=(second(),))
    asyncio.run(first())
    thread.join()
    assert order == ["first", "second"]


def test_loops_that_are_closed_leave_no_descriptor_and_no_object_behind() -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def run() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async with concurrency("x"):
            task = asyncio.create_task(_pass_a_slot_round(3))
            await until_waiting(3)
        await task

    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    create_limit("x", 1)
    asyncio.run(run())
    before = descriptors()
    for _ in range(30):
        asyncio.run(run())
    assert descriptors() <= before
    assert [loop() for loop in loops] == [None] * 31
    assert len(dispatcher._dispatchers) == 0


def test_a_loop_that_is_closed_with_tasks_pending_leaves_the_line(localconc_home_directory: Path) -> None:
    create_limit("x", 1)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # «Task was destroyed but it is pending»
    inside = asyncio.Event()
    tasks = [loop.create_task(hold("x", inside, asyncio.Event())) for _ in range(5)]
    loop.run_until_complete(until_waiting(4))
    assert len(read_holders()) == 1
    loop.close()
    known = weakref.ref(loop)
    del tasks, loop, inside
    wait_until(lambda: gc.collect() is not None and known() is None)
    assert_nothing_left(localconc_home_directory)
    assert len(dispatcher._dispatchers) == 0
    asyncio.run(asyncio.wait_for(_pass_a_slot_round(3), PATIENCE_SECONDS))


def test_a_waiting_task_that_nobody_else_refers_to_is_not_lost() -> None:
    async def run() -> None:
        served: list[int] = []

        async def take(number: int) -> None:
            async with concurrency("x"):
                served.append(number)

        async with concurrency("x"):
            for number in range(5):
                asyncio.get_running_loop().create_task(take(number))
            await until_waiting(5)
            gc.collect()
            assert len(read_waiters()) == 5
        async with concurrency("x", timeout_seconds=PATIENCE_SECONDS):
            await turns(3)
        assert served == list(range(5))

    create_limit("x", 1)
    asyncio.run(run())


@needs_fork
def test_a_forked_child_leaves_its_parent_s_tasks_in_line(localconc_home_directory: Path) -> None:
    async def run() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(hold("x", inside, leave)) for _ in range(3)]
        await until_waiting(2)
        child = os.fork()
        if child == 0:
            _end_of_child(tasks)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert len(read_holders()) == 1
        assert len(read_waiters()) == 2
        leave.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*tasks)  # they are told, too

    create_limit("x", 1)
    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def _end_of_child(tasks: list[asyncio.Task[None]]) -> None:
    """Close the parent's coroutines as a garbage collection would, use a loop of one's own, and end."""
    code = 1
    try:
        for task in tasks:
            coroutine = task.get_coro()
            assert coroutine is not None
            coroutine.close()  # type: ignore[union-attr]
        tasks.clear()
        holders, waiters = read_holders(), read_waiters()
        code = 0 if (len(holders), len(waiters)) == (1, 2) else 2
    finally:
        os._exit(code)
