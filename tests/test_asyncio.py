"""What the calls for tasks do, case by case: the same as those for threads."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import localconc.asyncio
import localconc.errors
import localconc.sync
from localconc import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    create_limit,
    delete_limit,
    read_holders,
    read_limit,
    read_limits,
    read_waiters,
    update_limit,
)
from localconc.asyncio import concurrency, rate_limit
from localconc.events import subscribe
from tests.kit.processes import Worker, crew
from tests.kit.tasks import assert_nothing_left, hold, turns, until, until_waiting


def test_both_faces_offer_the_same_names_and_parameters() -> None:
    assert localconc.asyncio.__all__ == localconc.sync.__all__
    for name in localconc.sync.__all__:
        theirs, ours = getattr(localconc.sync, name), getattr(localconc.asyncio, name)
        if name in ("acquire", "concurrency", "rate_limit"):
            assert inspect.signature(theirs) == inspect.signature(ours)
        else:
            assert theirs is ours


def test_a_block_holds_its_slots_while_it_runs_and_not_after(localconc_home_directory: Path) -> None:
    async def run() -> None:
        async with concurrency("db", occupy=2) as occupancy:
            assert read_limit("db").active_slots == 2
            assert occupancy.slots == 2
            assert [limit.name for limit in occupancy.limits] == ["db"]
            assert occupancy.waited_seconds < 5

    create_limit("db", 3)
    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


@pytest.mark.parametrize("nothing", [None, [], (), set(), iter(())])
def test_without_names_the_body_runs_and_the_store_is_not_touched(nothing: Any, localconc_home_directory: Path) -> None:
    async def run() -> None:
        async with concurrency(nothing) as occupancy:
            assert occupancy.limits == ()
        await rate_limit(nothing)

    asyncio.run(run())
    assert not localconc_home_directory.exists()


def test_switched_off_limits_hold_nobody_up(localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with concurrency("x", limit=0):
            pass

    monkeypatch.setenv("LOCALCONC_DISABLED", "1")
    asyncio.run(run())
    assert not localconc_home_directory.exists()


def test_all_or_nothing_a_full_limit_leaves_the_others_alone() -> None:
    async def run() -> None:
        async with concurrency("full"):
            with pytest.raises(AcquireConcurrencySlotTimeoutError):
                async with concurrency(["free", "full"], timeout_seconds=0):
                    pass
            assert {limit.name: limit.active_slots for limit in read_limits()} == {"free": 0, "full": 1}

    create_limit("free", 1)
    create_limit("full", 1)
    asyncio.run(run())


BAD_ARGUMENTS = [
    ({"names": ""}, ValueError, "names"),
    ({"names": "a/b"}, ValueError, "a/b"),
    ({"names": 5}, TypeError, "names"),
    ({"names": ["a", 5]}, TypeError, "5"),
    ({"names": "a", "occupy": 0}, ValueError, "occupy"),
    ({"names": "a", "occupy": 1.5}, TypeError, "occupy"),
    ({"names": "a", "timeout_seconds": -1}, ValueError, "timeout_seconds"),
    ({"names": "a", "timeout_seconds": float("nan")}, ValueError, "timeout_seconds"),
    ({"names": "a", "limit": -1}, ValueError, "limit"),
    ({"names": "a", "strict": "yes"}, TypeError, "strict"),
]


@pytest.mark.parametrize(("arguments", "error", "mentioned"), BAD_ARGUMENTS)
def test_a_bad_argument_raises_at_once_before_any_suspension(
    arguments: dict[str, Any], error: type[Exception], mentioned: str, localconc_home_directory: Path
) -> None:
    with pytest.raises(error, match=mentioned):
        concurrency(**arguments)
    awaited = rate_limit(**arguments)
    with pytest.raises(error, match=mentioned):
        awaited.send(None)  # no loop is running here: nothing can have been awaited
    assert not localconc_home_directory.exists()


def test_zero_seconds_try_once_and_say_what_stands_in_the_way() -> None:
    async def run() -> None:
        async with concurrency("x", limit=1):
            with pytest.raises(AcquireConcurrencySlotTimeoutError, match=r"timed out after 0 second.*1 of 1 in use"):
                async with concurrency("x", timeout_seconds=0):
                    pass

    asyncio.run(run())


def test_a_timeout_is_kept_and_leaves_no_place_in_the_queue(localconc_home_directory: Path) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with concurrency("x", limit=1):
            begun = loop.time()
            with pytest.raises(AcquireConcurrencySlotTimeoutError, match=r"after 0\.05 second"):
                async with concurrency("x", timeout_seconds=0.05):
                    pass
            assert 0.05 <= loop.time() - begun < 5
            assert read_waiters() == []

    asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


@pytest.mark.parametrize("retries", [0, 2])
def test_retries_run_out(retries: int) -> None:
    async def run() -> None:
        ahead = asyncio.create_task(hold(["quick", "full"], asyncio.Event(), asyncio.Event()))
        await until_waiting(1)
        with pytest.raises(ConcurrencySlotAcquisitionError, match="no retries are left"):
            async with concurrency("quick", max_retries=retries):
                pass
        assert [waiter.names for waiter in read_waiters()] == [("quick", "full")]
        ahead.cancel()

    create_limit("full", 1, active_slots=1)
    create_limit("quick", 1, slot_decay_per_second=100.0)
    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "missing", "strict": True}, "missing"),
        ({"names": "idle", "strict": True}, "idle"),
        ({"names": "two", "occupy": 3}, "more than the limit"),
    ],
)
def test_what_can_never_be_admitted_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    async def run() -> None:
        with pytest.raises(ConcurrencySlotAcquisitionError, match=message):
            async with concurrency(**options):
                pass

    create_limit("idle", 1, active=False)
    create_limit("two", 2)
    asyncio.run(run())


def test_rate_limit_refuses_limits_without_decay_and_names_them() -> None:
    create_limit("steady", 2)
    with pytest.raises(ConcurrencySlotAcquisitionError, match="'steady'"):
        asyncio.run(rate_limit("steady"))


def test_a_missing_limit_becomes_a_placeholder_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with concurrency("new"):
            assert read_limit("new").active is False

    with caplog.at_level(logging.WARNING, "localconc"):
        asyncio.run(run())
    assert "'new'" in caplog.text


def test_a_rate_is_kept_by_tasks_that_come_all_at_once() -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(*(rate_limit("api", limit=5, slot_decay_per_second=100) for _ in range(35)))
        return loop.time() - begun

    took = asyncio.run(run())
    assert took >= 0.299
    assert read_holders() == []


def test_the_body_s_exception_passes_and_the_slot_comes_back(localconc_home_directory: Path) -> None:
    async def run() -> None:
        async with concurrency("x", limit=1):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(run())
    assert_nothing_left(localconc_home_directory)


def test_a_task_is_known_by_its_name() -> None:
    async def run() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(hold("x", inside, leave, limit=1), name="fetcher")
        await inside.wait()
        second = asyncio.create_task(hold("x", inside, leave), name="next fetcher")
        await until_waiting(1)
        assert [holder.thread for holder in read_holders()] == ["fetcher"]
        assert [waiter.thread for waiter in read_waiters()] == ["next fetcher"]
        leave.set()
        await asyncio.gather(first, second)

    asyncio.run(run())


def test_events_are_emitted_as_for_threads() -> None:
    seen: list[str] = []
    unsubscribe = subscribe(lambda event: seen.append(event.event.rpartition(".")[2]))

    async def run() -> None:
        async with concurrency("x", limit=1):
            pass

    try:
        asyncio.run(run())
    finally:
        unsubscribe()
    assert seen == ["acquired", "released"]


# ---- one object, one block -------------------------------------------------------------------------------------------


def test_one_object_serves_one_block_at_a_time() -> None:
    async def run() -> None:
        shared = concurrency("x", limit=1)
        async with concurrency("x", limit=1):
            waiting = asyncio.create_task(shared.__aenter__())
            await until_waiting(1)
            with pytest.raises(RuntimeError, match="already entered"):
                async with shared:
                    pass
        await waiting
        with pytest.raises(RuntimeError, match="already entered"):
            async with shared:
                pass
        await shared.__aexit__(None, None, None)
        async with shared:
            assert read_limit("x").active_slots == 1

    asyncio.run(run())


def test_an_object_that_was_made_outside_any_loop_is_used_in_several() -> None:
    create_limit("x", 1)
    block = concurrency("x")

    async def run() -> None:
        async with concurrency("x"):
            waiting = asyncio.create_task(enter())
            await until_waiting(1)
        await waiting

    async def enter() -> None:
        async with block:
            pass

    asyncio.run(run())
    asyncio.run(run())


# ---- the decorator ---------------------------------------------------------------------------------------------------


def test_a_decorated_coroutine_function_stays_what_it_was_and_acquires_at_each_call() -> None:
    held: list[int] = []

    @concurrency("x", limit=1)
    async def double(number: int, *, plus: int = 0) -> int:
        """Twice as much."""
        held.append(read_limit("x").active_slots)
        await asyncio.sleep(0)
        return 2 * number + plus

    async def run() -> list[int]:
        return await asyncio.gather(*(double(number, plus=1) for number in range(5)))

    assert inspect.iscoroutinefunction(double)
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    assert list(inspect.signature(double).parameters) == ["number", "plus"]
    assert asyncio.run(run()) == [1, 3, 5, 7, 9]
    assert held == [1] * 5
    assert read_holders() == []


class Fetcher:
    async def __call__(self, url: str) -> str:
        return url

    @concurrency("x", limit=1)
    async def fetch(self, url: str) -> str:
        return url


async def _fetch(session: object, url: str) -> str:
    return url


@pytest.mark.parametrize(
    "call", [Fetcher().fetch, concurrency("x")(functools.partial(_fetch, None)), concurrency("x")(Fetcher().__call__)]
)
def test_methods_partial_functions_and_callable_objects_can_be_decorated(call: Any) -> None:
    assert asyncio.run(call("page")) == "page"


def _function() -> None: ...


def _generator() -> Iterator[int]:
    yield 1


async def _asynchronous_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (_function, r"localconc\.sync\.concurrency"),
        (_generator, r"localconc\.sync\.concurrency"),
        (_asynchronous_generator, "inside it"),
        (5, r"localconc\.sync\.concurrency"),
    ],
)
def test_decorating_anything_else_is_refused_and_says_what_to_use(function: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        concurrency("x")(function)


def test_the_decorator_of_the_other_face_refuses_coroutine_functions() -> None:
    with pytest.raises(TypeError, match=r"localconc\.asyncio\.concurrency"):
        localconc.sync.concurrency("x")(_fetch)


# ---- one line for all ------------------------------------------------------------------------------------------------


def test_tasks_threads_and_processes_stand_in_one_line_in_order_of_arrival() -> None:
    order: list[str] = []

    def thread() -> None:
        with localconc.sync.concurrency("x"):
            order.append("thread")

    async def task(name: str) -> None:
        async with concurrency("x"):
            order.append(name)

    async def run(workers: list[Worker]) -> None:
        async with concurrency("x", limit=1):
            tasks = [asyncio.create_task(task("first task"))]
            await until_waiting(1)
            workers.append(Worker("x"))
            await until_waiting(2)
            threads = [threading.Thread(target=thread)]
            threads[0].start()
            await until_waiting(3)
            tasks.append(asyncio.create_task(task("second task")))
            await until_waiting(4)
        await until(lambda: not workers[0].is_silent())
        workers[0].wait_inside()
        await turns(50)
        assert order == ["first task"]
        order.append("process")
        workers[0].leave()
        await asyncio.gather(*tasks)
        threads[0].join()

    with crew() as workers:
        asyncio.run(run(workers))
    assert order == ["first task", "process", "thread", "second task"]


def test_a_big_request_is_not_starved_by_small_ones() -> None:
    async def run() -> None:
        order: list[int] = []

        async def take(slots: int) -> None:
            async with concurrency("x", occupy=slots):
                order.append(slots)

        async with concurrency("x", limit=5):
            tasks = [asyncio.create_task(take(5))]
            await until_waiting(1)
            tasks += [asyncio.create_task(take(1)) for _ in range(20)]
            await until_waiting(21)
        await asyncio.gather(*tasks)
        assert order == [5] + [1] * 20

    asyncio.run(run())


# ---- an operator's changes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda: update_limit("x", limit=2),
        lambda: update_limit("x", active=False),
        lambda: update_limit("x", active_slots=0),
        lambda: delete_limit("x"),
    ],
    ids=["raised", "disabled", "forgotten holders", "deleted"],
)
def test_a_change_answers_the_tasks_that_wait(change: Any) -> None:
    async def run() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        async with concurrency("x", limit=1):
            waiting = asyncio.create_task(hold("x", inside, leave))
            await until_waiting(1)
            await asyncio.to_thread(change)
            await asyncio.wait_for(inside.wait(), 10)
        leave.set()
        await waiting

    asyncio.run(run())


def test_a_request_that_became_too_big_while_it_waited_is_refused() -> None:
    async def run() -> None:
        async with concurrency("x", limit=3):
            waiting = asyncio.create_task(hold("x", asyncio.Event(), asyncio.Event(), occupy=3))
            await until_waiting(1)
            await asyncio.to_thread(update_limit, "x", limit=2)
            with pytest.raises(ConcurrencySlotAcquisitionError, match="more than the limit"):
                await waiting

    asyncio.run(run())


def test_a_limit_that_begins_to_decay_lets_those_in_who_wait() -> None:
    async def run() -> None:
        async with concurrency("x", limit=1):
            waiting = asyncio.create_task(hold("x", inside := asyncio.Event(), leave := asyncio.Event()))
            await until_waiting(1)
            await asyncio.to_thread(update_limit, "x", slot_decay_per_second=20.0)
            await asyncio.wait_for(inside.wait(), 10)
            leave.set()
            await waiting

    asyncio.run(run())


# ---- the other face inside a loop ------------------------------------------------------------------------------------


def test_the_synchronous_face_in_a_loop_gives_up_in_time_where_tasks_of_the_loop_hold_the_slots() -> None:
    async def run() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold("x", inside, leave, limit=1))
        await inside.wait()
        waiting = asyncio.create_task(hold("x", asyncio.Event(), leave))
        await until_waiting(1)
        with pytest.raises(AcquireConcurrencySlotTimeoutError), localconc.sync.concurrency("x", timeout_seconds=0.1):
            pass
        leave.set()
        await asyncio.gather(holder, waiting)
        with localconc.sync.concurrency("x", timeout_seconds=5):
            assert read_limit("x").active_slots == 1

    asyncio.run(run())


def test_a_block_that_was_used_can_be_pickled_as_before() -> None:
    async def use() -> None:
        block = concurrency("db", limit=1)
        async with block:
            pass
        async with pickle.loads(pickle.dumps(block)) as occupancy:
            assert occupancy.slots == 1

    asyncio.run(use())
