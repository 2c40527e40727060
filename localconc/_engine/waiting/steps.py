"""The steps of a call, without saying how to pause.

`acquire` and `release` are generators. Each step does one thing that never blocks; in between they yield a `Backoff`
(the store is busy: pause for a moment) or a `Park` (pause until a moment, or until a wakeup comes). The driver pauses,
and sends the wakeups that came meanwhile. A thread drives them by sleeping, a task by awaiting, a test by stepping
through them: the way of a call is written once.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from localconc._engine.acquisitions import Deadlocked, Queued, Refused, WaitTerms
from localconc._engine.core.errors import Busy, Damaged, shown
from localconc._engine.holdings import Handle
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
    REPORTS_SECONDS,
    STORE_PATIENCE_SECONDS,
    STORE_TIMEOUT_SECONDS,
    WATCH_AFTER_SECONDS,
    poll_seconds,
)
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from localconc._engine.core.calls import Call
    from localconc._engine.core.clock import Mailbox
    from localconc._engine.engine import Engine
    from localconc._engine.liveness.owner import Owner
    from localconc._engine.queued import WaiterStatus
    from localconc._engine.waiting.mailboxes.mailbox import Wakeup

logger = logging.getLogger("localconc")

Result = TypeVar("Result")


class Mailboxes(Protocol):
    """Where the steps of a call get the mailbox for its wakeups: a thread has its own, tasks share their loop's."""

    def take(self, owner: Owner) -> Any:
        """Return a mailbox."""

    def put(self, mailbox: Any) -> None:
        """Take a mailbox back."""


class Backoff(NamedTuple):
    """Pause for a moment, because the store is busy; `until`, on the engine's clock, is when to give up."""

    seconds: float
    until: float | None


class Park(NamedTuple):
    """Pause until a moment on the engine's clock, a wakeup for the serial, or news on the watched descriptor."""

    until: float | None
    serial: int
    mailbox: Mailbox
    watched_fd: int | None


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
                    f"The database {shown(engine.store.database.path)} is damaged ({damage}) and can't be "
                    "rebuilt: move it away."
                ) from damage
            is_damaged = True


# ---- acquiring -------------------------------------------------------------------------------------------------------


def acquire(
    engine: Engine,
    call: Call,
    thread: str,
    context: int,
    mailboxes: Mailboxes,
    stopped: Callable[[], Iterable[int]],
    *,
    polls: bool,
    begun: float | None = None,
) -> Steps[Handle]:
    """Acquire what a call asks for.

    Args:
        thread: name of the thread or task.
        context: identifies the thread or task; 0 if anybody may release.
        mailboxes: where to get a mailbox for wakeups.
        stopped: returns the threads and tasks that can't go on while this call waits.
        polls: whether these steps look by themselves now and then; False if a dispatcher looks for many tasks.
        begun: when the caller began to wait, if that was before now.
    """
    request, timeout_seconds, max_retries = call.request, call.timeout_seconds, call.max_retries
    begun = engine.clock.now() if begun is None else begun
    deadline = None if timeout_seconds is None else begun + timeout_seconds
    tries_until = deadline if max_retries is None or deadline is not None else begun + STORE_TIMEOUT_SECONDS
    may_wait = timeout_seconds != 0 and max_retries != 0
    handle = engine.holdings.begin(thread, request.label, context)
    mailbox = None
    try:
        if may_wait and engine.membership.owner is None:  # mailboxes are an owner's
            yield from retry_while_busy(engine, engine.store.database.ensure_open, tries_until)
        owner = engine.membership.owner
        terms = None
        if may_wait and owner is not None:
            mailbox = mailboxes.take(owner)
            has_end = timeout_seconds is not None or max_retries is not None
            stops = () if has_end or not engine.holdings.contexts else _holding(engine, stopped())
            terms = WaitTerms(mailbox, has_end, max_retries is not None, stops)
        outcome: Handle | Queued | Refused | Deadlocked
        try:
            outcome = engine.acquisitions.try_acquire(request, handle, terms)
        except (Busy, Damaged):
            try_acquire = partial(engine.acquisitions.try_acquire, request, handle, terms)
            outcome = yield from retry_while_busy(engine, try_acquire, tries_until)
        if isinstance(outcome, (Refused, Deadlocked)):
            outcome = yield from _reap_and_try_again(engine, call, handle, terms, outcome, tries_until)
        if isinstance(outcome, Queued):
            polls = polls and not engine.is_alone
            wakeups = None
            if outcome.is_simple and outcome.due_at is None and max_retries is None:  # most waits are short
                until = begun + WATCH_AFTER_SECONDS if polls else deadline
                if deadline is not None and until is not None and deadline < until:
                    until = deadline
                wakeups = yield Park(until, handle.serial, outcome.mailbox, None)
                for wakeup in wakeups or ():
                    if wakeup[0] == handle.serial and engine.acquisitions.accept_wakeup(
                        request, outcome, handle, wakeup
                    ):
                        return handle
            yield from _Wait(engine, call, handle, outcome, begun, deadline, polls=polls).steps(is_told=bool(wakeups))
    except BaseException as error:
        engine.holdings.undo(handle)
        if isinstance(error, outcomes.StoreTimeout):
            raise outcomes.store_timeout(call, str(engine.store.database.path)) from None
        raise
    finally:
        if mailbox is not None:
            mailboxes.put(mailbox)
    return handle


def _holding(engine: Engine, contexts: Iterable[int]) -> tuple[int, ...]:
    """Return those of some threads and tasks that hold something."""
    return tuple(context for context in contexts if context in engine.holdings.contexts)


def _reap_and_try_again(
    engine: Engine,
    call: Call,
    handle: Handle,
    terms: WaitTerms | None,
    outcome: Handle | Queued | Refused | Deadlocked,
    deadline: float | None,
) -> Steps[Handle | Queued]:
    """Look for dead holders before saying no: perhaps nobody was waiting who would have noticed their end."""
    if isinstance(outcome, Deadlocked):
        reap = partial(engine.reaper.reap_owners, outcome.owner_ids)
    else:
        assert isinstance(outcome, Refused)
        reap = partial(engine.reaper.reap_in_front, outcome.limit_ids, None)
    if (yield from retry_while_busy(engine, reap, deadline)):
        again = partial(engine.acquisitions.try_acquire, call.request, handle, terms, is_retry=True)
        outcome = yield from retry_while_busy(engine, again, deadline)
    if isinstance(outcome, Deadlocked):
        raise outcomes.deadlocked(outcome.text)
    if isinstance(outcome, Refused):
        raise outcomes.refused(call, outcome.reason)
    return outcome


class _Wait:
    """One wait: the request stays in the queue until it is answered, the deadline passes, or the retries are used up.

    No wakeup is lost. The mailbox's address is in the waiter's row before the row can be granted, and a mailbox keeps
    what comes while nobody sleeps on it. So a wait parks right after it has enqueued or looked, and never in between.
    Only a wakeup that the system drops is missed, until the poll.
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
        self._begun = begun
        self._reports = iter(REPORTS_SECONDS if self._is_reported() else ())
        self._report_at = self._next_report()

    def _is_reported(self) -> bool:
        """Return whether reports of long waits are read; a virtual time could not stand still for them."""
        return not self._engine.is_alone and logger.isEnabledFor(logging.INFO)

    def _next_report(self) -> float | None:
        seconds = next(self._reports, None)
        return None if seconds is None else self._begun + seconds

    def steps(self, *, is_told: bool) -> Steps[None]:
        """Wait for the outcome; `is_told` if a wakeup has come that asks for a look."""
        engine, serial = self._engine, self._handle.serial
        if is_told and (yield from self._look(is_told=True)):
            return
        while True:
            until = self._next_moment()
            watched_fd = None if self._poll_at is None else engine.reaper.descriptor
            wakeups = yield Park(until, serial, self._queued.mailbox, watched_fd)
            is_told = False
            for wakeup in wakeups or ():
                if wakeup[0] == serial or wakeup[0] == 0:  # others are for an earlier user of the mailbox
                    is_told = True
                    if engine.acquisitions.accept_wakeup(self._call.request, self._queued, self._handle, wakeup):
                        return
            if (yield from self._look(is_told=is_told)):
                return

    def _next_moment(self) -> float | None:
        recheck_at = None if self._poll_at is None else self._engine.reaper.recheck_at
        first = None
        moments = (self._deadline, self._retry_at, self._due_at, self._watch_at, self._poll_at, self._report_at)
        for moment in (*moments, recheck_at):
            if moment is not None and (first is None or moment < first):
                first = moment
        return first

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

    def _look(self, *, is_told: bool) -> Steps[bool]:
        """Do what it is time for; return whether the request was granted. Raises if it is over.

        Args:
            is_told: whether a wakeup asks for a look at the store, whatever the time is.
        """
        engine, queued = self._engine, self._queued
        now = engine.clock.now()
        if self._watch_at is not None and self._watch_at <= now:
            yield from self._watch(now)
        if self._poll_at is not None and engine.reaper.has_news():
            yield from self._retry(engine.reaper.reap_suspects)
        if self._report_at is not None and self._report_at <= now:
            self._report_at = self._next_report()
            reason = yield from self._retry(partial(engine.queued.explain, queued, self._call.request.slots))
            outcomes.report_wait(now - self._begun, reason)
        if not is_told and not self._is_due(now):
            return False  # if a death made room, a wakeup tells so
        status = yield from self._retry(partial(engine.queued.check, queued))
        if not status.is_waiting:
            outcome = yield from self._retry(partial(engine.queued.accept, self._call.request, queued, self._handle))
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
        return poll_seconds(self._engine.reaper.is_complete and self._queued.mailbox.is_reachable, owners_ahead)

    def _retry(self, operation: Callable[[], Result]) -> Steps[Result]:
        return retry_while_busy(self._engine, operation, self._deadline)


# ---- releasing -------------------------------------------------------------------------------------------------------


def release(engine: Engine, handle: Handle) -> Steps[None]:
    """Release slots. It never fails: if the store does not allow it in time, the background does."""
    try:
        deadline = engine.clock.now() + RELEASE_PATIENCE_SECONDS
        yield from retry_while_busy(engine, partial(engine.acquisitions.release, handle), deadline)
    except (outcomes.StoreTimeout, StoreError) as error:
        engine.holdings.release_later(handle)
        report_late_release(error)
    except BaseException:
        engine.holdings.undo(handle)
        raise
