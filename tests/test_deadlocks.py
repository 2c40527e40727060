"""Who waits forever: the rule against a search through everything that could happen, and circles of processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localconc import ensure_limit, read_waiters
from localconc._engine.queue import deadlocks
from localconc._engine.queue.deadlocks import Held, Waiting, find_stuck, may_be_stuck
from localconc._engine.store.rows.ledger import Ledger
from localconc.asyncio import concurrency as concurrency_of_tasks
from localconc.errors import DeadlockError
from localconc.sync import acquire, concurrency
from tests.kit.processes import wait_until

LIMITS = (1, 2, 3)
CONTEXTS = tuple((1, number) for number in range(1, 5))

Situation = tuple[list[Waiting], list[Held], dict[int, int]]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Up to four threads, each with some slots, some of them waiting for more; limits of one or two slots."""
    sizes = {limit_id: draw(st.integers(1, 2)) for limit_id in LIMITS}
    free = dict(sizes)
    held = []
    for context in CONTEXTS:
        for limit_id in draw(st.sets(st.sampled_from(LIMITS), max_size=2)):
            slots = draw(st.integers(0, free[limit_id]))
            if slots:
                free[limit_id] -= slots
                held.append(Held(limit_id, context, slots, str(limit_id), ""))
    waiting = []
    for ticket, context in enumerate(draw(st.lists(st.sampled_from(CONTEXTS), unique=True, max_size=4)), 1):
        wanted = tuple(sorted(draw(st.sets(st.sampled_from(LIMITS), min_size=1, max_size=2))))
        slots = draw(st.integers(1, min(sizes[limit_id] for limit_id in wanted)))
        waiting.append(Waiting(ticket, context[0], (context,), slots, wanted, "", ""))
    return waiting, held, sizes


def admitted_in_some_future(waiting: list[Waiting], held: list[Held], sizes: dict[int, int]) -> set[int]:
    """Return the tickets that are admitted in one future or another, by trying every order of all that can happen.

    A thread that does not wait can release one of its holds, or ends. A request that is first in all its queues, with
    enough slots free, can be admitted.
    """
    admitted: set[int] = set()
    start = (frozenset(each.ticket for each in waiting), frozenset(range(len(held))), frozenset[int]())
    by_ticket = {each.ticket: each for each in waiting}
    seen, todo = {start}, [start]
    while todo:
        left, kept, inside = todo.pop()
        stopped = {context for ticket in left for context in by_ticket[ticket].contexts}
        futures = [(left, kept - {index}, inside) for index in kept if held[index].context not in stopped]
        futures += [
            (left, kept, inside - {ticket}) for ticket in inside if by_ticket[ticket].contexts[0] not in stopped
        ]
        for ticket in left:
            request = by_ticket[ticket]
            is_first = all(
                other > ticket or not set(by_ticket[other].limit_ids) & set(request.limit_ids)
                for other in left - {ticket}
            )
            fits = all(
                sum(held[index].slots for index in kept if held[index].limit_id == limit_id)
                + sum(by_ticket[other].slots for other in inside if limit_id in by_ticket[other].limit_ids)
                + request.slots
                <= sizes[limit_id]
                for limit_id in request.limit_ids
            )
            if is_first and fits:
                admitted.add(ticket)
                futures.append((left - {ticket}, kept, inside | {ticket}))
        for future in futures:
            if future not in seen:
                seen.add(future)
                todo.append(future)
    return admitted


@settings(max_examples=150, deadline=None)
@given(situations())
def test_those_who_wait_forever_are_those_whom_no_future_admits(situation: Situation) -> None:
    waiting, held, sizes = situation
    stuck = {each.ticket for each in find_stuck(waiting, held, sizes)}
    assert stuck == {each.ticket for each in waiting} - admitted_in_some_future(waiting, held, sizes)


@given(situations())
def test_the_quick_look_passes_over_nobody_who_waits_forever(situation: Situation) -> None:
    waiting, held, sizes = situation

    for request in find_stuck(waiting, held, sizes):
        others = {context for each in waiting if each is not request for context in each.contexts}
        assert may_be_stuck(
            request,
            lambda limit_id: {hold.context for hold in held if hold.limit_id == limit_id},
            lambda limit_id: {other for each in waiting if limit_id in each.limit_ids for other in each.limit_ids},
            others.copy,
        )


def test_callers_that_wait_for_one_that_goes_on_search_for_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[object] = []
    search = deadlocks.situation

    def counting(ledger: Ledger, more: Iterable[Waiting] = ()) -> deadlocks.Situation:
        searches.append(more)
        return search(ledger, more)

    def hold_and_wait(name: str) -> None:
        with concurrency(name), concurrency("wanted"):
            pass

    monkeypatch.setattr(deadlocks, "situation", counting)
    for name in ("wanted", "first", "second"):
        ensure_limit(name, 1)
    threads = [threading.Thread(target=hold_and_wait, args=(name,)) for name in ("first", "second")]
    with concurrency("wanted"):
        for thread in threads:
            thread.start()
        wait_until(lambda: len(read_waiters("wanted")) == 2)
        assert searches == [], "a search reads every request of the store while other processes wait for it"
        with pytest.raises(DeadlockError), concurrency("first"):
            pass
        assert len(searches) > 0
    for thread in threads:
        thread.join(20)


def test_a_circle_of_three_threads_is_found_by_the_request_that_closes_it() -> None:
    names = ("a", "b", "c")
    for name in names:
        ensure_limit(name, 1)
    holding, refused = threading.Barrier(3, timeout=60), []

    def take_two(first: str, second: str, waiters_before: int) -> None:
        with concurrency(first):
            holding.wait()
            wait_until(lambda: sum(len(read_waiters(name)) for name in names) >= waiters_before)
            try:
                with concurrency(second):
                    pass
            except DeadlockError as error:
                refused.append(str(error))

    pairs = [("a", "b"), ("b", "c"), ("c", "a")]
    threads = [threading.Thread(target=take_two, args=(*pair, before)) for before, pair in enumerate(pairs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert len(refused) == 1
    assert all(repr(name) in refused[0] for name in names)


def test_what_a_handle_holds_may_be_released_by_anybody() -> None:
    ensure_limit("gpu", 1)
    handle = acquire("gpu")

    def release_once_somebody_waits() -> None:
        wait_until(lambda: len(read_waiters("gpu")) == 1)
        handle.release()

    releasing = threading.Thread(target=release_once_somebody_waits)
    releasing.start()
    with concurrency("gpu"):
        pass
    releasing.join(timeout=60)


def test_who_takes_a_slot_twice_is_told_by_whom_it_is_held() -> None:
    ensure_limit("gpu", 1)
    with concurrency("gpu"), pytest.raises(DeadlockError, match=r"MainThread.*'gpu'"), concurrency("gpu"):
        pass


def test_a_blocking_call_in_a_loop_is_told_which_other_task_holds_what_it_waits_for() -> None:
    async def main() -> None:
        async with concurrency_of_tasks("gpu"):
            with pytest.raises(DeadlockError, match=r"\(MainThread\).*'gpu'.*by the holder, which can't go on"):
                await asyncio.create_task(block())

    async def block() -> None:
        with concurrency("gpu"):
            pass

    async def named() -> None:
        await asyncio.create_task(main(), name="the holder")

    ensure_limit("gpu", 1)
    asyncio.run(named())


def test_a_circle_through_a_queue_names_the_request_that_is_ahead() -> None:
    """`first` could have its slot beside the holder, but for the greater request in front of it."""
    ensure_limit("a", 1)
    ensure_limit("b", 2)
    messages: list[str] = []
    done = threading.Event()

    def hold_b_and_ask_for_a() -> None:
        with concurrency("b"):
            ready.set()
            wait_until(lambda: len(read_waiters("b")) == 2)
            try:
                concurrency("a").__enter__()
            except DeadlockError as error:
                messages.append(str(error))

    def ask_for_all_of_b() -> None:
        with concurrency("b", occupy=2):
            pass

    def hold_a_and_ask_for_b() -> None:
        with concurrency("a"):
            wait_until(lambda: len(read_waiters("b")) == 1)
            with concurrency("b"):
                done.set()

    ready = threading.Event()
    threads = [
        threading.Thread(target=work, name=name)
        for name, work in (("last", hold_b_and_ask_for_a), ("ahead", ask_for_all_of_b), ("first", hold_a_and_ask_for_b))
    ]
    threads[0].start()
    assert ready.wait(60)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert done.is_set()
    assert len(messages) == 1
    for name in ("last", "ahead", "first"):
        assert name in messages[0]
