"""Cancelled at any moment: nobody holds, nobody waits, and the next in line is served."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from localconc import create_limit, read_holders, read_waiters, update_limit
from localconc._engine import registry
from localconc._engine.core.errors import Busy
from localconc.asyncio import concurrency, rate_limit
from localconc.errors import AcquireConcurrencySlotTimeoutError
from tests.kit.processes import Worker, crew
from tests.kit.tasks import assert_nothing_left, hold, turns, until, until_waiting

# ---- every suspension point ------------------------------------------------------------------------------------------


class Interrupted:
    """An awaitable that is cancelled at its suspension number `at`: as it begins, or once what it waited for is there.

    Attributes:
        suspensions: how many there were.
    """

    def __init__(self, awaited: Awaitable[None], at: int, *, late: bool) -> None:
        self._awaited = awaited
        self._at = at
        self._late = late
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, None]:
        steps: Generator[Any, Any, None] = self._awaited.__await__()  # type: ignore[assignment]
        is_cancelled = False
        while True:
            try:
                future = steps.throw(asyncio.CancelledError()) if is_cancelled else next(steps)
            except StopIteration:
                return
            self.suspensions += 1
            is_cancelled = self.suspensions == self._at
            if is_cancelled and not self._late:
                if future is not None:  # None is a bare turn of the loop
                    future._asyncio_future_blocking = False
            else:
                yield future


class Reluctant:
    """Makes the store busy for each first attempt of every operation of tasks, so that each becomes a suspension."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = False
        self._refused: set[str] = set()
        engine = registry.current()
        for name in ("try_acquire", "release", "acquire_fast", "release_fast"):
            self._patch(monkeypatch, engine.acquisitions, name)
        for name in ("check", "accept", "deny", "give_up", "admit_overdue"):
            self._patch(monkeypatch, engine.queued, name)

    def _patch(self, monkeypatch: pytest.MonkeyPatch, part: object, name: str) -> None:
        monkeypatch.setattr(part, name, self._reluctant(name, getattr(part, name)))

    def _reluctant(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(*arguments: Any, **options: Any) -> Any:
            if not self.is_on:
                return operation(*arguments, **options)
            if name in ("acquire_fast", "release_fast"):
                return None
            if name in self._refused:
                self._refused.discard(name)
                return operation(*arguments, **options)
            self._refused.add(name)
            raise Busy

        return attempt


async def _take(names: str | list[str]) -> None:
    async with concurrency(names):
        await asyncio.sleep(0)


async def _give_up() -> None:
    with suppress(AcquireConcurrencySlotTimeoutError):
        async with concurrency("x", timeout_seconds=0.02):
            pass


async def _take_a_rate() -> None:
    await rate_limit("rate")
    await rate_limit("rate")


#: What is cancelled, and after how many turns of the loop the slot becomes free (None: it is free already, 0: never).
SCENARIOS: dict[str, tuple[Callable[[], Awaitable[None]], int | None]] = {
    "a slot is free": (lambda: _take("x"), None),
    "waits for a slot": (lambda: _take("x"), 20),
    "waits for two limits": (lambda: _take(["x", "y"]), 20),
    "runs out of time": (_give_up, 0),
    "waits for slots to drain": (_take_a_rate, None),
}


async def _beside_a_holder(awaited: Awaitable[None], leaves_after: int) -> None:
    inside, leave = asyncio.Event(), asyncio.Event()

    async def let_go() -> None:
        await turns(leaves_after)
        leave.set()

    holder = asyncio.create_task(hold("x", inside, leave))
    await inside.wait()
    try:
        letting_go = asyncio.create_task(let_go()) if leaves_after else None
        await awaited
    finally:
        leave.set()
        await holder
        if letting_go is not None:
            await letting_go


@pytest.mark.parametrize("busy", [False, True], ids=["store free", "store busy at each step"])
@pytest.mark.parametrize("late", [False, True], ids=["as it waits", "as it is woken"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_cancelled_at_each_suspension_point_nothing_is_left_and_the_next_is_served(
    scenario: str, late: bool, busy: bool, monkeypatch: pytest.MonkeyPatch, localconc_home_directory: Path
) -> None:
    create_limit("x", 1)
    create_limit("y", 1)
    create_limit("rate", 1, slot_decay_per_second=50.0)
    reluctant = Reluctant(monkeypatch)
    work, leaves_after = SCENARIOS[scenario]

    async def is_cancelled_at(at: int) -> bool:
        interrupted = Interrupted(work(), at, late=late)
        reluctant.is_on = busy
        cancelled = False
        try:
            await (interrupted if leaves_after is None else _beside_a_holder(interrupted, leaves_after))
        except asyncio.CancelledError:
            cancelled = True
        reluctant.is_on = False
        assert cancelled == (interrupted.suspensions >= at)
        async with asyncio.timeout(20):
            await _take(["x", "y"])  # the next in line
        return cancelled

    at = 1
    while asyncio.run(is_cancelled_at(at)):
        assert_nothing_left(localconc_home_directory)
        at += 1
        assert at < 60
    assert at > (2 if busy else 1), "there were moments to be cancelled at"
    assert_nothing_left(localconc_home_directory)


# ---- moments ---------------------------------------------------------------------------------------------------------


def test_a_cancel_in_the_same_tick_as_the_grant_hands_the_slot_on(localconc_home_directory: Path) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        for order in ("cancel first", "grant first"):
            holder_inside, leave = asyncio.Event(), asyncio.Event()
            holder = asyncio.create_task(hold("x", holder_inside, leave, limit=1))
            await holder_inside.wait()
            granted = asyncio.create_task(hold("x", asyncio.Event(), asyncio.Event()))
            await until_waiting(1)
            next_inside = asyncio.Event()
            following = asyncio.create_task(hold("x", next_inside, next_leave := asyncio.Event()))
            await until_waiting(2)
            if order == "cancel first":
                loop.call_soon(granted.cancel)
                leave.set()
            else:
                leave.set()
                await holder  # its slot is granted to the next by now, who was not told yet
                granted.cancel()
            with pytest.raises(asyncio.CancelledError):
                await granted
            async with asyncio.timeout(10):
                await next_inside.wait()
            next_leave.set()
            await asyncio.gather(holder, following)

    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def test_a_cancel_that_meets_a_busy_store_while_leaving_still_gives_the_slot_back(
    localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_limit("x", 1)
    reluctant = Reluctant(monkeypatch)

    async def run() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold("x", inside, leave))
        await inside.wait()
        reluctant.is_on = True
        leave.set()
        await turns(2)
        assert not holder.done(), "it naps, for the store is busy"
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        reluctant.is_on = False
        async with concurrency("x", timeout_seconds=10):
            pass

    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


# ---- the standard library's ways -------------------------------------------------------------------------------------


def _timeout(seconds: float) -> Callable[[Awaitable[None]], Awaitable[None]]:
    async def bounded(awaited: Awaitable[None]) -> None:
        async with asyncio.timeout(seconds):
            await awaited

    return bounded


@pytest.mark.parametrize(
    "bound",
    [_timeout(0.03), lambda awaited: asyncio.wait_for(awaited, 0.03)],
    ids=["asyncio.timeout", "wait_for"],
)
@pytest.mark.parametrize("call", ["concurrency", "__aenter__", "rate_limit"])
def test_bounded_by_the_standard_library(bound: Any, call: str, localconc_home_directory: Path) -> None:
    create_limit("x", 1)
    create_limit("rate", 0, slot_decay_per_second=1.0)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "concurrency": lambda: hold("x", asyncio.Event(), asyncio.Event()),
        "__aenter__": lambda: concurrency("x").__aenter__(),
        "rate_limit": lambda: rate_limit("rate"),
    }

    async def run() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold("x", inside, leave))  # not this task: it would wait for itself
        await inside.wait()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await bound(calls[call]())
            assert read_waiters() == []
        leave.set()
        await holder
        async with concurrency("x", timeout_seconds=10):
            pass

    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def test_a_task_group_that_fails_takes_its_waiting_tasks_out_of_the_line(localconc_home_directory: Path) -> None:
    async def fail() -> None:
        await until_waiting(10)
        raise KeyError("mine")

    async def wait_together() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(hold("x", asyncio.Event(), asyncio.Event()))
            group.create_task(fail())

    async def run() -> None:
        async with concurrency("x", limit=1):
            with pytest.raises(ExceptionGroup):
                await wait_together()
            assert read_waiters() == []
            assert len(read_holders()) == 1

    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def test_a_loop_that_ends_with_tasks_pending_leaves_nothing(localconc_home_directory: Path) -> None:
    async def run() -> None:
        inside = asyncio.Event()
        tasks.append(asyncio.create_task(hold("x", inside, asyncio.Event(), limit=1)))
        tasks.extend(asyncio.create_task(hold("x", asyncio.Event(), asyncio.Event())) for _ in range(20))
        await until_waiting(20)

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(run())
    assert all(task.cancelled() for task in tasks)
    assert_nothing_left(localconc_home_directory)


def test_the_decorator_gives_back_when_its_function_is_cancelled(localconc_home_directory: Path) -> None:
    @concurrency("x", limit=1)
    async def sleep() -> None:
        inside.set()
        await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.create_task(sleep())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert read_holders() == []

    inside = asyncio.Event()
    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


# ---- storms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_cancels_leaves_nothing_and_never_exceeds_the_limit(
    seed: int, localconc_home_directory: Path
) -> None:
    chance = random.Random(seed)
    inside = {"a": 0, "b": 0}
    limits = {"a": 3, "b": 2}

    async def work(names: list[str]) -> None:
        for _ in range(3):
            async with concurrency(names):
                for name in names:
                    inside[name] += 1
                    assert inside[name] <= limits[name]
                try:
                    await asyncio.sleep(chance.random() * 0.002)
                finally:
                    for name in names:
                        inside[name] -= 1

    async def run() -> None:
        tasks = [asyncio.create_task(work(chance.choice([["a"], ["b"], ["a", "b"], ["b", "a"]]))) for _ in range(150)]
        while not all(task.done() for task in tasks):
            chance.choice(tasks).cancel()
            await asyncio.sleep(chance.random() * 0.003)
        for task in tasks:
            assert task.cancelled() or task.exception() is None
        assert read_waiters() == []

    for name, limit in limits.items():
        create_limit(name, limit)
    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def test_a_storm_beside_other_processes_serves_them_all(localconc_home_directory: Path) -> None:
    chance = random.Random(7)

    async def run(workers: list[Worker]) -> None:
        tasks = [asyncio.create_task(hold("x", asyncio.Event(), asyncio.Event())) for _ in range(30)]
        await until_waiting(28)
        workers += [Worker("x"), Worker("x")]
        await until_waiting(30)
        tasks += [asyncio.create_task(hold("x", asyncio.Event(), asyncio.Event())) for _ in range(30)]
        await until_waiting(60)
        chance.shuffle(tasks)
        for task in tasks:
            task.cancel()
            await turns(chance.randrange(3))
        for worker in workers:
            await until(lambda worker=worker: not worker.is_silent())  # type: ignore[misc]
            worker.wait_inside()
        await asyncio.wait(tasks)
        update_limit("x", limit=3)
        for worker in workers:
            worker.finish()

    create_limit("x", 2)
    with crew() as workers:
        asyncio.run(run(workers))
    assert_nothing_left(localconc_home_directory)
