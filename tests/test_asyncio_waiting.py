"""How tasks wait: without threads, without polling, and without holding up their loop."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from localconc import AcquireConcurrencySlotTimeoutError, create_limit, read_holders, read_waiters, update_limit
from localconc._engine import registry
from localconc._engine.homes.home import DATABASE_NAME
from localconc._engine.liveness import watch as watching
from localconc._engine.waiting import dispatcher
from localconc._engine.waiting.mailboxes import pool as mailbox_pool
from localconc._engine.waiting.mailboxes.mailbox import Mailbox
from localconc._engine.waiting.mailboxes.notifier import Notifier
from localconc._engine.waiting.throttle import MAX_TASKS_AN_ITERATION
from localconc.asyncio import concurrency, rate_limit
from tests.kit.processes import Worker, crew, spawn, stop
from tests.kit.tasks import assert_nothing_left, hold, turns, until, until_waiting

NEVER_SECONDS = 3_600.0


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is served only because it was told."""
    monkeypatch.setattr(dispatcher, "poll_seconds", lambda *_: NEVER_SECONDS)


async def _all_inside(tasks: list[asyncio.Task[None]], leave: asyncio.Event) -> None:
    await until(lambda: len(read_holders()) == len(tasks))
    leave.set()
    await asyncio.gather(*tasks)


# ---- being told ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_poll")
def test_waiting_tasks_need_one_descriptor_and_no_thread() -> None:
    async def run() -> None:
        async with concurrency("x", limit=1):
            leave = asyncio.Event()
            tasks = [asyncio.create_task(hold("x", asyncio.Event(), leave))]
            await until_waiting(1)
            threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
            tasks += [asyncio.create_task(hold("x", asyncio.Event(), leave)) for _ in range(99)]
            await until_waiting(100)
            assert threading.active_count() <= threads
            assert len(os.listdir("/proc/self/fd")) <= descriptors
            leave.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.usefixtures("no_poll")
def test_more_tasks_are_admitted_at_once_than_a_mailbox_holds_wakeups_for(localconc_home_directory: Path) -> None:
    async def run() -> None:
        leave = asyncio.Event()
        async with concurrency("x", limit=1):
            tasks = [asyncio.create_task(hold("x", asyncio.Event(), leave)) for _ in range(200)]
            await until_waiting(200)
        update_limit("x", limit=200)  # blocks the loop: nobody reads the mailbox meanwhile
        await _all_inside(tasks, leave)

    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def test_a_wakeup_that_is_lost_costs_no_more_than_the_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with concurrency("x", limit=1):
            waiting = asyncio.create_task(hold("x", asyncio.Event(), leave := asyncio.Event()))
            await until_waiting(1)
            leave.set()
        begun = time.monotonic()
        async with asyncio.timeout(10):
            await waiting
        assert time.monotonic() - begun < 5

    monkeypatch.setattr(Notifier, "send", lambda self, wakeups: None)
    asyncio.run(run())


def test_a_loop_without_readers_is_served_as_well(localconc_home_directory: Path) -> None:
    class LoopWithoutReaders(asyncio.SelectorEventLoop):
        def add_reader(self, *arguments: Any) -> Any:
            raise NotImplementedError

    async def run() -> None:
        await _pass_a_slot_round()

    with asyncio.Runner(loop_factory=LoopWithoutReaders) as runner:
        runner.run(run())
    assert_nothing_left(localconc_home_directory)


def test_tasks_are_served_where_there_are_no_sockets(
    localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path, address: str) -> Mailbox:
        raise OSError("there are no such sockets here")

    monkeypatch.setattr(mailbox_pool, "SocketMailbox", refuse)
    asyncio.run(_pass_a_slot_round())
    assert_nothing_left(localconc_home_directory)


async def _pass_a_slot_round() -> None:
    async def take() -> None:
        async with concurrency("x"):
            await asyncio.sleep(0)

    async with concurrency("x", limit=1):
        tasks = [asyncio.create_task(take()) for _ in range(5)]
        await until_waiting(5)
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks)
        await asyncio.gather(*(rate_limit("rate", limit=1, slot_decay_per_second=100) for _ in range(5)))


def test_a_store_that_was_replaced_tells_those_who_wait(localconc_home_directory: Path) -> None:
    async def run() -> None:
        async with concurrency("x", limit=1):
            waiting = asyncio.create_task(hold("x", asyncio.Event(), asyncio.Event()))
            await until_waiting(1)
            with sqlite3.connect(localconc_home_directory / DATABASE_NAME) as connection:
                connection.execute("DELETE FROM waiters")
                connection.execute("DELETE FROM queue")
            connection.close()
            registry.current().store.database.close()  # as if it had noticed
            with pytest.raises(Exception, match="vanished"):
                await asyncio.wait_for(waiting, 10)

    asyncio.run(run())


# ---- others that die or stop -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not watching.IS_SUPPORTED, reason="the kernel tells nothing of other processes")
@pytest.mark.usefixtures("no_poll")
def test_the_slots_of_a_killed_process_pass_to_a_waiting_task(localconc_home_directory: Path) -> None:
    async def run(worker: Worker) -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        waiting = asyncio.create_task(hold("x", inside, leave))
        await until_waiting(1)
        await until(lambda: registry.current().reaper.descriptor is not None)
        os.kill(worker.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await inside.wait()
        leave.set()
        await waiting

    create_limit("x", 1)
    with crew() as workers:
        workers.append(Worker("x"))
        workers[0].wait_inside()
        asyncio.run(run(workers[0]))
    assert_nothing_left(localconc_home_directory)


def _take_a_rate(pipe: Any) -> None:
    import localconc.sync

    pipe.send("started")
    localconc.sync.rate_limit("rate")


def test_a_stopped_process_that_is_first_in_line_does_not_stop_the_tasks_behind_it() -> None:
    async def run(stopped: Any) -> None:
        await until(lambda: [waiter.pid for waiter in read_waiters()] == [stopped.pid])
        stop(stopped.pid)
        behind = [asyncio.create_task(rate_limit("rate")) for _ in range(3)]
        await until_waiting(4)
        update_limit("rate", active_slots=2)  # in 0.4 s there is room for the first in line, who sleeps for ever
        begun = time.monotonic()
        async with asyncio.timeout(15):
            await asyncio.gather(*behind)
        assert time.monotonic() - begun < 5

    create_limit("rate", 1, active_slots=1_000, slot_decay_per_second=5.0)
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_take_a_rate, args=(theirs,))
    process.start()
    try:
        assert ours.recv() == "started"
        asyncio.run(run(process))
    finally:
        process.kill()
        process.join()


# ---- a busy store ----------------------------------------------------------------------------------------------------


@contextmanager
def _held_up(home: Path) -> Iterator[Callable[[], None]]:
    """Another process is in the middle of a write transaction; what is yielded ends it."""
    connection = sqlite3.connect(home / DATABASE_NAME, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield lambda: connection.execute("ROLLBACK") and None
    finally:
        connection.close()


def test_while_the_store_is_held_up_the_loop_goes_on_and_few_attempts_are_made(
    localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = [0]

    def try_acquire(*arguments: Any, **options: Any) -> Any:
        attempts[0] += 1
        return original(*arguments, **options)

    async def run() -> None:
        leave = asyncio.Event()
        with _held_up(localconc_home_directory) as end:
            tasks = [asyncio.create_task(hold("x", asyncio.Event(), leave)) for _ in range(300)]
            await turns(500)
            assert not any(task.done() for task in tasks)
            attempts[0] = 0
            begun = time.monotonic()
            while time.monotonic() - begun < 0.25:
                await asyncio.sleep(0.001)
            assert 1 <= attempts[0] <= 1_000, "one looks on behalf of all, each time it has napped"
            end()
        await _all_inside(tasks, leave)

    create_limit("x", 300)
    acquisitions = registry.current().acquisitions
    original = acquisitions.try_acquire
    monkeypatch.setattr(acquisitions, "try_acquire", try_acquire)
    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def test_a_timeout_is_kept_while_the_store_is_held_up(localconc_home_directory: Path) -> None:
    async def give_up(seconds: float) -> float:
        begun = time.monotonic()
        with pytest.raises(AcquireConcurrencySlotTimeoutError, match="another process held the database"):
            async with concurrency("x", timeout_seconds=seconds):
                pass
        return time.monotonic() - begun

    async def run() -> None:
        with _held_up(localconc_home_directory):
            patient = asyncio.create_task(hold("x", asyncio.Event(), asyncio.Event()))  # looks on behalf of the others
            await turns(20)
            took = await asyncio.gather(give_up(0.2), give_up(0.3), *(give_up(0.25) for _ in range(20)))
            assert took[0] >= 0.2
            assert max(took) < 5
            patient.cancel()

    create_limit("x", 1)
    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def test_leaving_while_the_store_is_held_up_does_not_hold_up_the_loop(localconc_home_directory: Path) -> None:
    async def run() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold("x", inside, leave, limit=1))
        await inside.wait()
        with _held_up(localconc_home_directory) as end:
            leave.set()
            await turns(200)
            assert not holder.done()
            end()
        async with asyncio.timeout(10):
            await holder

    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


# ---- sharing the loop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 1_000])
def test_tasks_that_all_start_at_once_let_the_loop_turn_in_between(limit: int) -> None:
    ticks = [0]
    over = False

    async def tick() -> None:
        while not over:
            ticks[0] += 1
            await asyncio.sleep(0)

    async def take() -> None:
        async with concurrency("x"):
            pass

    async def run() -> None:
        nonlocal over
        ticking = asyncio.create_task(tick())
        async with concurrency("x", limit=limit):
            tasks = [asyncio.create_task(take()) for _ in range(300)]
            await (until_waiting(300) if limit == 1 else asyncio.gather(*tasks))
        await asyncio.gather(*tasks)
        over = True
        await ticking

    asyncio.run(run())
    assert ticks[0] >= 300 / MAX_TASKS_AN_ITERATION


def test_a_task_that_never_awaits_anything_else_does_not_keep_the_loop_to_itself() -> None:
    async def run() -> None:
        task = asyncio.create_task(take_for_ever())
        await turns(20)  # would never come back
        task.cancel()

    async def take_for_ever() -> None:
        while True:
            async with concurrency("x", limit=1):
                pass

    asyncio.run(run())


def test_tasks_that_start_at_once_are_served_in_the_order_in_which_they_started() -> None:
    order: list[int] = []

    async def take(number: int) -> None:
        async with concurrency("x"):
            order.append(number)

    async def run() -> None:
        async with concurrency("x", limit=1):
            tasks = [asyncio.create_task(take(number)) for number in range(100)]
            await until_waiting(100)
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert order == list(range(100))
