"""The longer waits, in which a queued request looks at the store from time to time."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from math import inf
from random import random
from typing import TYPE_CHECKING

from localconc._engine.acquiring.parents import parent_tasks, possible_parents, warning_of_parent
from localconc._engine.acquiring.terms import Deadlocked
from localconc._engine.core.clock import InPassing
from localconc._engine.holding.holdings import Handle
from localconc._engine.store.store import MAX_SPARED_SECONDS, OWN_SPARED_SECONDS, SparedLooks
from localconc._engine.waiting import outcomes
from localconc._engine.waiting.pauses import Park, Result, Steps, retry_while_busy
from localconc._engine.waiting.timing import (
    FAR_BEHIND,
    MAX_POLLERS,
    OVERDUE_SECONDS,
    REPORTS_SECONDS,
    WATCH_AFTER_SECONDS,
    poll_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.acquiring.queued import WaiterStatus
    from localconc._engine.acquiring.terms import Queued
    from localconc._engine.core.calls import Call
    from localconc._engine.engine import Engine
    from localconc._engine.queue.explain import Reason
    from localconc._engine.waiting.mailboxes.mailbox import Wakeup

logger = logging.getLogger("localconc")


def is_reported() -> bool:
    """Return whether long waits are reported."""
    return logger.isEnabledFor(logging.INFO)


class Wait:
    """One wait: the request stays in the queue until it has an outcome, the deadline passes, or no retries are left.

    No wakeup is lost between a look and the next pause. The mailbox's address is in the waiter's row before another
    process can grant it, and a mailbox keeps a wakeup that comes while its thread is awake. So a call parks right after
    it has enqueued or looked. Only if the system drops a wakeup does the call miss it, until it polls.
    """

    def __init__(
        self,
        engine: Engine,
        call: Call,
        handle: Handle,
        queued: Queued,
        begun: float,
        *,
        polls: bool,
        parent_at: float | None,
    ) -> None:
        self._engine = engine
        self._call = call
        self._handle = handle
        self._queued = queued
        self._deadline = None if call.timeout_seconds is None else begun + call.timeout_seconds
        self._due_at = queued.due_at
        self._retry_at = None if call.max_retries is None else begun + queued.retry_after
        self._retries_left = call.max_retries or 0
        self._watch_at = begun + WATCH_AFTER_SECONDS if polls else None
        self._poll_at: float | None = None
        self._seconds = 0.0  # from one poll to the next
        self._watched: tuple[int, list[int]] | None = None  # the store and the limits whose processes are watched
        self._other_at = 0.0  # when anything but a poll is due
        self._others_look_until = 0.0  # those in front do what a poll does, all but to look for its own outcome
        self._owners_ahead = 0
        self._spared = SparedLooks(engine.store)
        self._begun = begun
        self._reports = iter(REPORTS_SECONDS if is_reported() else ())
        self._report_at = self._next_report(begun)
        self._parent_at = parent_at

    def _next_report(self, now: float) -> float | None:
        """Return when the next report of a long wait is due; those for which it is too late are left out."""
        return next((moment for seconds in self._reports if (moment := self._begun + seconds) > now), None)

    def steps(self, wakeups: list[Wakeup] | None) -> Steps[None]:
        """Wait for the outcome.

        Args:
            wakeups: those that have come already.
        """
        engine, serial = self._engine, self._handle.serial
        while True:
            has_wakeup = False
            for wakeup in wakeups or ():
                if wakeup[0] == serial or wakeup[0] == 0:  # other wakeups are for an earlier user of the mailbox
                    has_wakeup = True
                    if engine.acquisitions.accept_wakeup(self._call.request, self._queued, self._handle, wakeup):
                        return
            until = None if has_wakeup else self._sleep_on()
            if until is None:
                if (yield from self._look(has_wakeup=has_wakeup)):
                    return
                until = self._next_moment()
            watched_fd = None if self._poll_at is None else engine.reaper.descriptor
            wakeups = yield Park(until, serial, self._queued.terms.mailbox, watched_fd)

    def _next_moment(self) -> float | None:
        recheck_at = None if self._poll_at is None else self._engine.reaper.recheck_at
        first = None
        moments = (self._deadline, self._retry_at, self._due_at, self._watch_at, self._parent_at, recheck_at)
        for moment in moments:
            if moment is not None and (first is None or moment < first):
                first = moment
        self._other_at = min(inf if first is None else first, inf if self._report_at is None else self._report_at)
        if self._poll_at is not None and (first is None or self._poll_at < first):
            first = self._poll_at
        if self._report_at is None:
            return first
        return InPassing(self._report_at) if first is None else min(first, self._report_at)

    def _sleep_on(self) -> float | None:
        """Return until when to sleep on, if only a poll is due, and nothing has happened since the last one; else None.

        Hundreds may wait, and a thread that has slept for long pays ten microseconds for each function. So these are
        few.
        """
        engine, poll_at, other_at = self._engine, self._poll_at, self._other_at
        now = engine.clock.now()
        if poll_at is None or now < poll_at or now >= other_at:
            return None
        is_in_crowd = engine.mailboxes.pollers > MAX_POLLERS
        if not (engine.spared_looks if is_in_crowd else self._spared).may_spare(now):
            return None
        self._poll_at = poll_at = now + (self._poll_seconds() if is_in_crowd else self._seconds)
        return min(poll_at, other_at)

    def _is_due(self, now: float) -> bool:
        moments = (self._deadline, self._retry_at, self._due_at, self._poll_at)
        return any(moment is not None and moment <= now for moment in moments)

    def _watch(self, now: float) -> Steps[None]:
        """Begin to watch the processes in front, now that this is one of the longer waits."""
        self._watch_at = None
        engine, queued = self._engine, self._queued
        limit_ids = [ref.limit_id for ref in queued.refs]
        yield from self._retry(partial(engine.reaper.watch_in_front, limit_ids, queued.ticket))
        self._watched = engine.membership.generation, limit_ids
        tasks, pids = possible_parents(queued.requester.context)
        if not tasks and not (yield from self._retry(partial(engine.reaper.are_on, limit_ids, pids))):
            self._parent_at = None  # who comes later is served later, and holds nothing that this request waits for
        engine.mailboxes.note_poller(queued.terms.mailbox)
        if self._is_in_crowd():
            self._owners_ahead = yield from self._retry(partial(engine.queued.owners_ahead, limit_ids))
            self._poll_at = self._soon(now)
            return
        state = engine.store.database.state()
        status = yield from self._retry(partial(engine.queued.check, queued))
        self._owners_ahead = status.owners_ahead
        self._seconds = self._poll_seconds()
        self._poll_at = now + self._seconds if status.is_waiting else now
        if status.owners_ahead >= FAR_BEHIND and engine.reaper.is_complete and not status.depends_on_time:
            self._spared.looked(now, state, MAX_SPARED_SECONDS)
            self._others_look_until = now + MAX_SPARED_SECONDS

    def _look(self, *, has_wakeup: bool) -> Steps[bool]:
        """Do what is due; return whether the request was granted. Raise if it was refused, or the time is up.

        Args:
            has_wakeup: whether a wakeup asks for a look at the store at any time.
        """
        engine, queued = self._engine, self._queued
        now = engine.clock.now()
        if not has_wakeup and self._watch_at is not None and self._watch_at <= now:
            yield from self._watch(now)
        if self._poll_at is not None and engine.reaper.has_news():
            yield from self._retry(engine.reaper.reap_suspects)
            self._poll_at = now  # one may have admitted this request, and died before it sent the wakeup
        if self._report_at is not None and self._report_at <= now:
            self._report_at = self._next_report(now)
            reason = yield from self._retry(partial(engine.queued.explain, queued, self._call.request.slots))
            outcomes.report_wait(now - self._begun, reason)
        if self._parent_at is not None and self._parent_at <= now:
            yield from self._warn_of_parent(now)
        if not has_wakeup and not self._is_due(now):
            if self._poll_at is not None:  # the crowd may have halved, so that those who are left poll more often
                self._poll_at = min(self._poll_at, self._soon(now))
            return False  # if a death made room, there is a wakeup
        if not has_wakeup and (yield from self._look_briefly(now)):
            return False
        state = engine.store.database.state()
        status = yield from self._retry(partial(engine.queued.check, queued))
        self._owners_ahead = status.owners_ahead
        if not status.is_waiting:
            return (yield from self._accept())
        self._due_at = status.due_at
        now = engine.clock.now()
        if status.due_at is not None and status.due_at <= now:
            yield from self._retry(partial(engine.queued.admit_overdue, status.limit_ids))
            return False
        if self._deadline is not None and now >= self._deadline:
            raise outcomes.out_of_time(self._call, (yield from self._give_up()))
        if self._retry_at is not None and now >= self._retry_at:
            yield from self._count_retry(now)
        if self._poll_at is not None and now >= self._poll_at:
            yield from self._poll(now, status, state)
        return False

    def _look_briefly(self, now: float) -> Steps[bool]:
        """Return whether it still waits far behind, if only a poll is due: those in front do the rest of that."""
        engine = self._engine
        if now >= min(self._other_at, self._others_look_until) or not engine.reaper.is_complete:
            return False
        state = engine.store.database.state()
        self._owners_ahead = yield from self._retry(partial(engine.queued.owners_in_front, self._queued))
        if self._owners_ahead < FAR_BEHIND:
            return False
        self._spared.looked(now, state, self._others_look_until - now)
        self._seconds = self._poll_seconds()
        self._poll_at = now + self._seconds
        return True

    def _accept(self) -> Steps[bool]:
        """Accept the outcome; return whether the request was granted. If it was passed over, it is queued again."""
        engine = self._engine
        accept = partial(engine.queued.accept, self._call.request, self._queued, self._handle)
        outcome = yield from self._retry(accept)
        if isinstance(outcome, Deadlocked):  # unless a process in the circle is dead
            yield from self._retry(partial(engine.reaper.reap_owners, outcome.owner_ids))
            outcome = yield from self._retry(accept)
        if isinstance(outcome, Deadlocked):
            raise outcomes.deadlocked(outcome.text)
        if isinstance(outcome, Handle):
            return True
        self._queued = outcome
        self._others_look_until, self._watched = 0.0, None  # it may have another place, behind others
        return False

    def _warn_of_parent(self, now: float) -> Steps[None]:
        """Warn if the holder may be waiting for this very call."""
        self._parent_at = None
        engine = self._engine
        if not engine.parent_checks.begin(self._queued.refs, parent_tasks(self._queued.requester.context), now):
            return
        reason = yield from self._retry(partial(engine.queued.explain, self._queued, self._call.request.slots))
        warning = warning_of_parent(reason.entries, engine.membership.owner_id, self._queued.requester.context)
        if warning is not None:
            engine.warn_once("parent", *warning)

    def _give_up(self) -> Steps[Reason]:
        """Leave the queue; return what the request waited for.

        The reason is read before, without the lock that other processes wait for: afterwards, those behind it may hold
        the slots. If the store is busy for too long, the request leaves the queue in the background.
        """
        queued = self._engine.queued
        reason = yield from self._retry(partial(queued.explain, self._queued, self._call.request.slots))
        with suppress(outcomes.StoreTimeout):
            yield from self._retry(partial(queued.give_up, self._queued))
        return reason

    def _count_retry(self, now: float) -> Steps[None]:
        """Count one more refused attempt."""
        engine, queued = self._engine, self._queued
        self._retries_left -= 1
        retry_after = yield from self._retry(partial(engine.queued.deny, self._call.request, queued))
        if self._retries_left <= 0:
            raise outcomes.out_of_retries((yield from self._give_up()))
        self._retry_at = now + retry_after

    def _poll(self, now: float, status: WaiterStatus, state: bytes | None) -> Steps[None]:
        """Stand in for suspended and dead processes in front, and set the moment of the next poll.

        Args:
            state: of the store, before this look at it.
        """
        engine, limit_ids, is_reachable = self._engine, status.limit_ids, self._queued.terms.mailbox.is_reachable
        spared_looks = self._spared_looks()  # now: the crowd may begin while this looks for one thread
        is_in_crowd = spared_looks is engine.spared_looks
        self._seconds = self._poll_seconds()
        self._poll_at = now + self._seconds
        if is_in_crowd or not is_reachable:
            engine.mailboxes.wake_answered((yield from self._retry(engine.queued.addresses)))
        if is_in_crowd:
            moment, spare_seconds, _ = yield from self._retry(engine.stand_in)
        else:
            yield from self._retry(partial(self._look_in_front, status))
            moment = None
            if status.may_be_stopped or status.overdue:
                moment = yield from self._retry(partial(engine.act_for_stopped, limit_ids, status.overdue))
            others_look = status.owners_ahead >= FAR_BEHIND or engine.reaper.is_complete
            is_settled = moment is None and others_look and not status.depends_on_time
            seconds = MAX_SPARED_SECONDS if status.owners_ahead > 0 else OWN_SPARED_SECONDS
            spare_seconds = seconds if is_settled else 0.0
            self._others_look_until = now + spare_seconds if status.owners_ahead >= FAR_BEHIND else 0.0
        spared_looks.looked(now, state, spare_seconds)
        if moment is not None:
            self._poll_at = min(self._poll_at, moment + OVERDUE_SECONDS)

    def _look_in_front(self, status: WaiterStatus) -> None:
        """Look for dead processes in front. Where they can't all be watched, that is left to the nearest waiters.

        Who came later is not in front, so this watches more only if an operator has changed what the request is queued
        on. The first in line looks even if all are watched: a child that C code forked keeps its parent's file open.
        """
        reaper, limit_ids, ticket = self._engine.reaper, status.limit_ids, self._queued.ticket
        watched = self._engine.membership.generation, limit_ids
        if watched != self._watched:
            reaper.watch_in_front(limit_ids, ticket)
            self._watched = watched
        if status.owners_ahead >= FAR_BEHIND:
            if not reaper.is_complete:
                reaper.reap_served_first(limit_ids, ticket, FAR_BEHIND)
        elif not reaper.is_complete or status.owners_ahead == 0:
            reaper.reap_in_front(limit_ids, ticket)

    def _is_in_crowd(self) -> bool:
        """Return whether so many threads of this process wait that each poll is for all of them."""
        return self._engine.mailboxes.pollers > MAX_POLLERS

    def _spared_looks(self) -> SparedLooks:
        return self._engine.spared_looks if self._is_in_crowd() else self._spared

    def _soon(self, now: float) -> float:
        """Return when to poll. The threads of a crowd often begin together, and are to poll at different moments."""
        return now + self._poll_seconds() * (random() if self._is_in_crowd() else 1)

    def _poll_seconds(self) -> float:
        engine, gets_wakeups = self._engine, self._queued.terms.mailbox.is_reachable
        return poll_seconds(gets_wakeups, engine.reaper.is_complete, self._owners_ahead, engine.mailboxes.pollers)

    def _retry(self, operation: Callable[[], Result]) -> Steps[Result]:
        return retry_while_busy(self._engine, operation, self._deadline)
