"""How a thread takes the steps of a call: it sleeps at each pause."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from localconc._engine.acquiring.acquisitions import HANDED_OVER
from localconc._engine.acquiring.contexts import stopped_by_caller
from localconc._engine.acquiring.parents import FIRST_AFTER_SECONDS
from localconc._engine.acquiring.terms import Queued, new_terms
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.waiting import outcomes, steps
from localconc._engine.waiting.pauses import Backoff, Park, Steps, retry_while_busy
from localconc._engine.waiting.timing import QUICK_TRIES, STORE_TIMEOUT_SECONDS, WATCH_AFTER_SECONDS
from localconc._engine.waiting.wait import Wait
from localconc._locks import ENDLESSLY
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from localconc._engine.acquiring.terms import Deadlocked, Refused, WaitTerms
    from localconc._engine.core.calls import Call, Request
    from localconc._engine.engine import Engine
    from localconc._engine.holding.holdings import Handle
    from localconc._engine.waiting.mailboxes.mailbox import Wakeup

Result = TypeVar("Result")

#: Linux wakes the receiver of a datagram on the sender's processor, because it expects the sender to sleep soon. So the
#: sender lets the new holder run first. That halves the time from release to acquire, and costs nothing else.
_let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


def run_steps(engine: Engine, steps: Steps[Result]) -> Result:
    """Take the steps to their end. An exception that interrupts a pause is raised inside the steps, which clean up."""
    go: Callable[[Any], Backoff | Park] = steps.send
    argument: Any = None
    try:
        for _ in ENDLESSLY:
            pause = go(argument)
            try:
                argument = _pause(engine, pause)
            except BaseException as interruption:
                go, argument = steps.throw, interruption
            else:
                go = steps.send
    except StopIteration as end:
        result: Result = end.value
    except BaseException:
        steps.close()  # an interrupt struck between two steps; a collected generator would clean up too late
        raise
    finally:
        argument = None  # its traceback refers to this very frame
    return result


def _pause(engine: Engine, pause: Backoff | Park) -> list[Wakeup] | None:
    """Sleep; return the wakeups that came meanwhile."""
    if isinstance(pause, Backoff):
        time.sleep(pause.seconds)
        return None
    engine.clock.pause(pause.mailbox, pause.until, pause.watched_fd)
    return pause.mailbox.take()


def acquire(engine: Engine, call: Call, thread: str, context: int) -> Handle:
    """Acquire what a call asks for; `thread` names the caller, `context` identifies it."""
    handle = engine.acquisitions.acquire_fast(call.request, thread, context)
    if handle is not None:
        return handle
    begun = engine.clock.now()
    handle = _acquire_by_a_short_wait(engine, call, thread, context, begun)
    if handle is not None:
        return handle
    mailboxes = engine.mailboxes
    return run_steps(
        engine, steps.acquire(engine, call, thread, context, mailboxes, stopped_by_caller, polls=True, begun=begun)
    )


def _acquire_by_a_short_wait(engine: Engine, call: Call, thread: str, context: int, begun: float) -> Handle | None:
    """Acquire as the steps of a call do, if nobody is to say what happens meanwhile: most requests wait for a moment.

    A thread that has slept finds the caches of its processor cold, and pays microseconds for each function that it
    calls. So this is one function, without a generator. A wait that lasts goes on with the steps.

    Returns:
        None, with nothing done, if the steps are needed: the store is not open, the call counts its tries, or it may
        wait for its own caller.
    """
    request, timeout_seconds = call.request, call.timeout_seconds
    acquisitions, holdings, owner = engine.acquisitions, engine.holdings, engine.membership.owner
    if owner is None or timeout_seconds == 0 or call.max_retries is not None or engine.is_alone:
        return None
    if timeout_seconds is None and holdings.grants and stopped_by_caller(holdings.contexts):
        return None
    deadline = None if timeout_seconds is None else begun + timeout_seconds
    handle, mailbox, wakeups = holdings.begin(thread, request.label, context), None, None
    outcome: Handle | Queued | Refused | Deadlocked | None = None
    try:
        mailbox = engine.mailboxes.take(owner)
        terms = new_terms((mailbox, timeout_seconds is not None, False, (), engine.membership.generation))
        attempt = acquisitions.try_by_rules
        try:
            outcome = acquisitions.enqueue_fast(request, handle, terms)
        except Busy:
            attempt = acquisitions.try_acquire
            outcome = _enqueue_soon(engine, request, handle, terms)
        except Damaged:
            outcome = None
        if outcome is None:
            operation = partial(attempt, request, handle, terms)
            outcome = run_steps(engine, retry_while_busy(engine, operation, deadline))
        if isinstance(outcome, Queued):
            if outcome.is_simple and outcome.due_at is None:
                first_look_at = begun + WATCH_AFTER_SECONDS
                engine.clock.pause(mailbox, first_look_at if deadline is None else min(first_look_at, deadline), None)
                wakeups = mailbox.take()
                if wakeups and acquisitions.accept_wakeup(request, outcome, handle, wakeups[0]):
                    return handle
            parent_at = begun + FIRST_AFTER_SECONDS
            wait = Wait(engine, call, handle, outcome, begun, polls=True, parent_at=parent_at)
            run_steps(engine, wait.steps(wakeups))
    except BaseException as error:
        holdings.undo(handle)
        if isinstance(error, outcomes.StoreTimeout):
            raise outcomes.store_timeout(call, str(engine.store.database.path)) from None
        raise
    finally:
        if mailbox is not None:
            engine.mailboxes.put(mailbox)
    return handle


def _enqueue_soon(engine: Engine, request: Request, handle: Handle, terms: WaitTerms) -> Handle | Queued | None:
    """Try a few times more to queue a request by one statement: another process writes for microseconds at a time."""
    for _ in range(QUICK_TRIES):
        _let_others_run()
        try:
            return engine.acquisitions.enqueue_fast(request, handle, terms)
        except Busy:
            continue
        except Damaged:
            break
    return None


def release(engine: Engine, handle: Handle) -> None:
    """Release slots. This never fails: if the store does not allow it, the background goes on with it."""
    acquisitions = engine.acquisitions
    for _ in range(QUICK_TRIES):  # without the generator, so that the next waiter gets the slots sooner
        try:
            if (acquisitions.release_fast(handle) or acquisitions.release_by_rules(handle)) == HANDED_OVER:
                _let_others_run()
            return
        except Busy:
            _let_others_run()
        except (Damaged, StoreError):
            break
    run_steps(engine, steps.release(engine, handle))


def run(engine: Engine, operation: Callable[[], Result]) -> Result:
    """Carry out an operation that does not wait for slots, as soon as the store is free for it.

    Raises:
        StoreError: the store can't be used, or another process holds it for too long.
    """
    deadline = engine.clock.now() + STORE_TIMEOUT_SECONDS
    try:
        return run_steps(engine, retry_while_busy(engine, operation, deadline))
    except outcomes.StoreTimeout:
        raise outcomes.store_held(str(engine.store.database.path), STORE_TIMEOUT_SECONDS) from None
