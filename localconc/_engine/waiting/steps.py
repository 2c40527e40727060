"""The steps of a call, without saying how to pause.

`acquire` and `release` are generators. Each step does one thing that never blocks; in between they yield a `Backoff` (the
store is busy: pause for a moment) or a `Park` (pause until a moment, or until a wakeup comes). The driver pauses, and
sends the wakeups that came meanwhile. A thread drives them by sleeping, a task by awaiting, a test by stepping through
them: the way of a call is written once.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from localconc._engine.acquisitions import Handle, Queued, Refused
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.releases import report_late_release
from localconc._engine.waiting import outcomes
from localconc._engine.waiting.timing import (
    BACKOFF_GROWTH,
    MAX_BACKOFF_HELD_UP_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_BACKOFF_SHARE,
    MAX_REBUILDS,
    MIN_BACKOFF_SECONDS,
    OVERDUE_SECONDS,
    RELEASE_PATIENCE_SECONDS,
    STORE_PATIENCE_SECONDS,
    STORE_TIMEOUT_SECONDS,
    WATCH_AFTER_SECONDS,
    poll_seconds,
)
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.core.calls import Call
    from localconc._engine.core.clock import Mailbox
    from localconc._engine.engine import Engine
    from localconc._engine.queued import WaiterStatus
    from localconc._engine.waiting.notifier import Wakeup

Result = TypeVar("Result")


class Backoff(NamedTuple):
    """Pause for a moment, because the store is busy; `until`, on the engine's clock, is when to give up at the latest."""

    seconds: float
    until: float | None


class Park(NamedTuple):
    """Pause until a moment on the engine's clock, or until a wakeup for this serial comes."""

    until: float | None
    serial: int


#: What a driver drives: it gets pauses, sends wakeups, and in the end has the result.
Steps = Generator[Backoff | Park, "list[Wakeup] | None", Result]


def retry_while_busy(engine: Engine, operation: Callable[[], Result], deadline: float | None) -> Steps[Result]:
    """Try an operation until the store is free for it; rebuild a damaged store on the way.

    Raises:
        StoreTimeout: the store stayed busy until the deadline.
        StoreError: the store can't be used.
    """
    seconds = MIN_BACKOFF_SECONDS
    rebuilds = 0
    is_damaged = False
    busy_since = give_up_at = None
    while True:
        try:
            if is_damaged:
                engine.rebuild()
                is_damaged = False
            return operation()
        except Busy:
            now = engine.clock.now()
            busy_since = busy_since or now
            if deadline is not None:
                give_up_at = give_up_at or max(deadline, now + STORE_PATIENCE_SECONDS)
                if now >= give_up_at:
                    raise outcomes.StoreTimeout from None
            yield Backoff(seconds, give_up_at)
            longest = max(MAX_BACKOFF_SECONDS, (now - busy_since) * MAX_BACKOFF_SHARE)
            seconds = min(seconds * BACKOFF_GROWTH, longest, MAX_BACKOFF_HELD_UP_SECONDS)
        except Damaged as damage:
            rebuilds += 1
            if rebuilds > MAX_REBUILDS:
                raise StoreError(
                    f"The database {engine.store.database.path} is damaged ({damage}) and can't be rebuilt: move it away."
                ) from damage
            is_damaged = True


# ---- acquiring -------------------------------------------------------------------------------------------------------


def acquire(
    engine: Engine,
    call: Call,
    thread: str,
    context: int,
    mailbox: Callable[[], Mailbox],
    *,
    polls: bool,
    begun: float | None = None,
) -> Steps[Handle]:
    """Acquire what a call asks for.

    Args:
        thread: name of the thread or task.
        context: identifies the thread or task; 0 if anybody may release.
        mailbox: returns the mailbox for wakeups, once there is something to wait for.
        polls: whether these steps look by themselves now and then; False if a dispatcher looks for many tasks.
        begun: when the caller began to wait, if that was before now.
    """
    request, timeout_seconds, max_retries = call.request, call.timeout_seconds, call.max_retries
    begun = engine.clock.now() if begun is None else begun
    deadline = None if timeout_seconds is None else begun + timeout_seconds
    tries_until = deadline if max_retries is None or deadline is not None else begun + STORE_TIMEOUT_SECONDS
    handle = engine.acquisitions.begin(thread, request.label, context)
    try:
        may_wait = timeout_seconds != 0 and max_retries != 0
        outcome = yield from _try_acquire(engine, call, handle, mailbox if may_wait else None, tries_until)
        if isinstance(outcome, Refused):
            raise outcomes.refused(call, outcome.reason)
        if isinstance(outcome, Queued):
            yield from _Wait(engine, call, handle, outcome, begun, deadline, polls=polls and not engine.is_alone).steps()
    except BaseException as error:
        engine.acquisitions.undo(handle)
        if isinstance(error, outcomes.StoreTimeout):
            raise outcomes.store_timeout(call, str(engine.store.database.path)) from None
        raise
    return handle


def _try_acquire(
    engine: Engine,
    call: Call,
    handle: Handle,
    mailbox: Callable[[], Mailbox] | None,
    deadline: float | None,
) -> Steps[Handle | Queued | Refused]:
    try_acquire = partial(engine.acquisitions.try_acquire, call.request, handle, mailbox)
    attempt = partial(try_acquire, needs_estimate=call.max_retries is not None)
    outcome = yield from retry_while_busy(engine, attempt, deadline)
    if isinstance(outcome, Refused):
        # Nobody may be waiting who would have noticed that a holder died: look before saying no.
        limit_ids = outcome.limit_ids
        reap = engine.reaper.reap_in_front
        if (yield from retry_while_busy(engine, lambda: reap(limit_ids, None), deadline)):
            outcome = yield from retry_while_busy(engine, partial(try_acquire, is_retry=True), deadline)
    return outcome


class _Wait:
    """One wait: the request stays in the queue until it is answered, the deadline passes, or the retries are used up.

    No wakeup is lost. The mailbox's address is in the waiter's row before the row can be granted, and a mailbox keeps what
    comes while nobody sleeps on it. So a wait parks right after it has enqueued or looked, and never in between. Only a
    wakeup that the system drops is missed, until the poll.
    """

    def __init__(
        self,
        engine: Engine,
        call: Call,
        handle: Handle,
        queued: Queued,
        begun: float,
        deadline: float | None,
        *,
        polls: bool,
    ) -> None:
        self._engine = engine
        self._call = call
        self._handle = handle
        self._queued = queued
        self._deadline = deadline
        self._due_at = queued.due_at
        self._retry_at = None if call.max_retries is None else begun + queued.retry_after
        self._retries_left = call.max_retries or 0
        self._polls = polls
        self._watch_at = begun + WATCH_AFTER_SECONDS if polls else None
        self._poll_at: float | None = None

    def steps(self) -> Steps[None]:
        engine, handle = self._engine, self._handle
        while True:
            until = self._next_moment()
            wakeups = yield Park(until, handle.serial)
            for wakeup in wakeups or ():
                if engine.queued.accept_wakeup(self._call.request, self._queued, handle, wakeup) is not None:
                    return
            now = engine.clock.now()
            if not wakeups and self._watch_at is not None and self._watch_at <= now and not self._is_due(now):
                yield from self._watch(now)
                continue
            if (yield from self._look(now)):
                return

    def _next_moment(self) -> float | None:
        moments = [self._deadline, self._retry_at, self._due_at, self._watch_at, self._poll_at]
        if self._polls:
            moments.append(self._engine.reaper.recheck_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def _is_due(self, now: float) -> bool:
        moments = (self._deadline, self._retry_at, self._due_at, self._poll_at)
        return any(moment is not None and moment <= now for moment in moments)

    def _watch(self, now: float) -> Steps[None]:
        """Watch the lives of the processes in front, now that this is one of the longer waits."""
        self._watch_at = None
        limit_ids = [ref.limit_id for ref in self._queued.refs]
        watch = partial(self._engine.reaper.watch_in_front, limit_ids, self._queued.ticket)
        yield from self._retry(watch)
        self._poll_at = now + self._poll_seconds(0)

    def _look(self, now: float) -> Steps[bool]:
        """Look at the store; return whether the request was granted. Raises if it is over."""
        engine, queued = self._engine, self._queued
        if self._polls and engine.reaper.has_news():
            yield from self._retry(engine.reaper.reap_suspects)
        status = yield from self._retry(partial(engine.queued.check, queued))
        if not status.is_waiting:
            outcome = yield from self._retry(
                partial(engine.queued.accept, self._call.request, queued, self._handle)
            )
            if isinstance(outcome, Handle):
                return True
            self._queued = outcome  # it was passed over while it was stopped
            return False
        self._due_at = status.due_at
        now = engine.clock.now()
        if status.due_at is not None and status.due_at <= now:
            yield from self._retry(partial(engine.queued.admit_overdue, status.limit_ids))
            return False
        if self._deadline is not None and now >= self._deadline:
            reason = yield from self._retry(partial(engine.queued.give_up, queued, self._call.request.slots))
            raise outcomes.out_of_time(self._call, reason)
        if self._retry_at is not None and now >= self._retry_at:
            yield from self._count_retry(now)
        if self._poll_at is not None and now >= self._poll_at:
            yield from self._poll(now, status)
        return False

    def _count_retry(self, now: float) -> Steps[None]:
        """Count one more refused attempt."""
        engine, queued = self._engine, self._queued
        self._retries_left -= 1
        retry_after = yield from self._retry(partial(engine.queued.deny, self._call.request, queued))
        if self._retries_left <= 0:
            reason = yield from self._retry(partial(engine.queued.give_up, queued, self._call.request.slots))
            raise outcomes.out_of_retries(reason)
        self._retry_at = now + retry_after

    def _poll(self, now: float, status: WaiterStatus) -> Steps[None]:
        """Stand in for suspended and dead processes in front, and set the moment of the next poll."""
        engine = self._engine
        self._poll_at = now + self._poll_seconds(status.owners_ahead)
        yield from self._retry(engine.store.database.ensure_open)
        yield from self._retry(partial(engine.reaper.watch_in_front, status.limit_ids, self._queued.ticket))
        if not engine.reaper.is_complete:
            yield from self._retry(partial(engine.reaper.reap_in_front, status.limit_ids, self._queued.ticket))
        yield from self._retry(partial(engine.reaper.pass_over_stopped, status.limit_ids))
        if status.overdue:
            next_due = yield from self._retry(partial(engine.queued.admit_overdue, status.overdue))
            if next_due is not None:  # the first in line is stopped, and the next one may be, too
                self._poll_at = min(self._poll_at, next_due + OVERDUE_SECONDS)

    def _poll_seconds(self, owners_ahead: int) -> float:
        return poll_seconds(self._engine.reaper.is_complete and self._queued.is_reachable, owners_ahead)

    def _retry(self, operation: Callable[[], Result]) -> Steps[Result]:
        return retry_while_busy(self._engine, operation, self._deadline)


# ---- releasing -------------------------------------------------------------------------------------------------------


def release(engine: Engine, handle: Handle) -> Steps[None]:
    """Release slots; if the store does not allow it in time, the background does. It never fails and never loses any."""
    try:
        deadline = engine.clock.now() + RELEASE_PATIENCE_SECONDS
        yield from retry_while_busy(engine, partial(engine.acquisitions.release, handle), deadline)
    except (outcomes.StoreTimeout, StoreError) as error:
        engine.acquisitions.release_later(handle)
        report_late_release(error)
    except BaseException:
        engine.acquisitions.undo(handle)
        raise
