"""The steps of a call, which leave it to a driver how to pause.

`acquire` and `release` are generators. Each step does one thing that never blocks. In between they yield a `Backoff`
(pause for a moment, because the store is busy) or a `Park` (pause until a moment, or until a wakeup comes). The driver
pauses, and sends in the wakeups that came meanwhile. A thread drives them by sleeping, a task by awaiting, a test by
stepping through them, so the steps are written once for all.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from localconc._engine.acquiring.parents import FIRST_AFTER_SECONDS, parent_tasks
from localconc._engine.acquiring.terms import Deadlocked, Queued, Refused, WaitTerms
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.holding.holdings import Handle
from localconc._engine.holding.releases import report_late_release
from localconc._engine.waiting import outcomes, timing
from localconc._engine.waiting.pauses import Park, Steps, retry_while_busy
from localconc._engine.waiting.wait import Wait, is_reported
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from localconc._engine.core.calls import Call
    from localconc._engine.engine import Engine
    from localconc._engine.waiting.pauses import MailboxSource

# ---- acquiring -------------------------------------------------------------------------------------------------------


def acquire(
    engine: Engine,
    call: Call,
    thread: str,
    context: int,
    mailboxes: MailboxSource,
    stopped: Callable[[Collection[int]], Iterable[int]],
    *,
    polls: bool,
    begun: float | None = None,
) -> Steps[Handle]:
    """Acquire what a call asks for.

    Args:
        thread: name of the thread or task.
        context: identifies the thread or task; 0 if any thread or task may release.
        mailboxes: provides a mailbox for wakeups.
        stopped: returns which of the threads and tasks that hold something can't continue while this call waits.
        polls: whether these steps poll the store; False if a dispatcher polls it for many tasks.
        begun: when the caller began to wait, if that was before now.
    """
    request, timeout_seconds, max_retries = call.request, call.timeout_seconds, call.max_retries
    begun = engine.clock.now() if begun is None else begun
    deadline = None if timeout_seconds is None else begun + timeout_seconds
    tries_until = begun + timing.STORE_TIMEOUT_SECONDS if deadline is None and max_retries is not None else deadline
    may_wait = timeout_seconds != 0 and max_retries != 0
    handle = engine.holdings.begin(thread, request.label, context)
    terms: WaitTerms | None = None
    outcome: Handle | Queued | Refused | Deadlocked
    try:
        if may_wait and engine.membership.owner is None:  # only a process that has joined the store has mailboxes
            yield from retry_while_busy(engine, engine.store.database.ensure_open, tries_until)
        terms = _terms(engine, call, mailboxes, stopped) if may_wait else None
        try:
            outcome = engine.acquisitions.try_acquire(request, handle, terms)
        except (Busy, Damaged):
            again = partial(engine.acquisitions.try_acquire, request, handle, terms)
            outcome = yield from retry_while_busy(engine, again, tries_until)
        if isinstance(outcome, (Refused, Deadlocked)):
            outcome = yield from _reap_and_try_again(engine, call, handle, terms, outcome, tries_until)
        if isinstance(outcome, Queued):
            polls = polls and not engine.is_alone
            parent_at, wakeups = None if engine.is_alone else begun + FIRST_AFTER_SECONDS, None
            if parent_at is not None and not polls:
                parent_at = engine.parent_checks.plan(outcome.refs, parent_tasks(context), begun, deadline)
            is_simple = outcome.is_simple and outcome.due_at is None and max_retries is None
            if is_simple and not engine.is_alone:  # most waits are short
                first_look_at = begun + timing.WATCH_AFTER_SECONDS if polls else parent_at
                if is_reported() and not polls:
                    first_look_at = begun + FIRST_AFTER_SECONDS
                moments = [moment for moment in (first_look_at, deadline) if moment is not None]
                until = min(moments, default=None)
                wakeups = yield Park(until, handle.serial, outcome.terms.mailbox, None)
                if wakeups and engine.acquisitions.accept_wakeup(request, outcome, handle, wakeups[0]):
                    return handle
            wait = Wait(engine, call, handle, outcome, begun, polls=polls, parent_at=parent_at)
            yield from wait.steps(wakeups)
    except BaseException as error:
        engine.holdings.undo(handle)
        if isinstance(error, outcomes.StoreTimeout):
            raise outcomes.store_timeout(call, str(engine.store.database.path)) from None
        raise
    finally:
        if terms is not None:
            mailboxes.put(terms.mailbox)
    return handle


def _terms(
    engine: Engine, call: Call, mailboxes: MailboxSource, stopped: Callable[[Collection[int]], Iterable[int]]
) -> WaitTerms | None:
    owner = engine.membership.owner
    if owner is None:
        return None
    has_end = call.timeout_seconds is not None or call.max_retries is not None
    stops: tuple[int, ...] = ()
    if not has_end and engine.holdings.grants:
        stops = tuple(stopped(engine.holdings.contexts))
    generation = engine.membership.generation
    return WaitTerms(mailboxes.take(owner), has_end, call.max_retries is not None, stops, generation)


def _reap_and_try_again(
    engine: Engine,
    call: Call,
    handle: Handle,
    terms: WaitTerms | None,
    outcome: Handle | Queued | Refused | Deadlocked,
    deadline: float | None,
) -> Steps[Handle | Queued]:
    """Reap dead holders before a refusal: without a waiter, no process may have noticed that they died."""
    if isinstance(outcome, Deadlocked):
        reap = partial(engine.reaper.reap_owners, outcome.owner_ids)
    else:
        assert isinstance(outcome, Refused)
        reap = partial(engine.reaper.reap_in_front, outcome.limit_ids, None, outcome.reason.owner_ids)
    if (yield from retry_while_busy(engine, reap, deadline)):
        again = partial(engine.acquisitions.try_acquire, call.request, handle, terms, is_retry=True)
        outcome = yield from retry_while_busy(engine, again, deadline)
    if isinstance(outcome, Deadlocked):
        raise outcomes.deadlocked(outcome.text)
    if isinstance(outcome, Refused):
        if call.timeout_seconds != 0:
            raise outcomes.out_of_retries(outcome.reason)
        reason = outcome.reason
        with suppress(outcomes.StoreTimeout):
            complete = partial(engine.queued.with_all_holders, outcome)
            reason = yield from retry_while_busy(engine, complete, deadline)
        raise outcomes.out_of_time(call, reason)
    return outcome


# ---- releasing -------------------------------------------------------------------------------------------------------


def release(engine: Engine, handle: Handle) -> Steps[None]:
    """Release slots. This never fails: if the store stays busy, the background goes on with it."""
    try:
        deadline = engine.clock.now() + timing.RELEASE_PATIENCE_SECONDS
        yield from retry_while_busy(engine, partial(engine.acquisitions.release, handle), deadline)
    except (outcomes.StoreTimeout, StoreError) as error:
        engine.holdings.release_later(handle)
        report_late_release(error)
    except BaseException:
        engine.holdings.undo(handle)
        raise
