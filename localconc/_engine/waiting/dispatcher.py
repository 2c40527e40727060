"""The dispatcher, which waits on behalf of all tasks of one event loop: one mailbox, one slow poll, one watch.

A dispatcher exists while a task of its loop takes the steps of a call. Only that long does it use a reader and timers
of the loop, so a closed loop leaves nothing behind. These in turn keep the dispatcher and its tasks alive, to which the
loop itself has only weak references.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakMethod, WeakValueDictionary

from localconc._engine.core.clock import call_later
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.store.rows import listings
from localconc._engine.store.store import SparedLooks
from localconc._engine.waiting.mailboxes.mailbox import LOOK
from localconc._engine.waiting.throttle import MAX_TASKS_AN_ITERATION, LoopThrottle, TaskEvent, loop_budget
from localconc._engine.waiting.timing import (
    MAX_WAITING_BESIDE,
    OVERDUE_SECONDS,
    WATCH_AFTER_SECONDS,
    poll_seconds,
)
from localconc._locks import lock_of_process
from localconc.errors import StoreError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable

    from localconc._engine.core.clock import Timer
    from localconc._engine.engine import Engine
    from localconc._engine.liveness.owner import Owner
    from localconc._engine.waiting.mailboxes.mailbox import Mailbox

#: A mailbox that held this many wakeups may have been full (on Linux it holds ten), so that others were dropped.
PERHAPS_FULL: Final = 8

#: After this long, the dispatcher retries an operation of its own on a store that was busy.
RETRY_SECONDS: Final = 0.005

_dispatchers: WeakValueDictionary[tuple[Engine, AbstractEventLoop], LoopDispatcher] = WeakValueDictionary()
_locks: dict[int, threading.RLock] = {}


def dispatcher_of(engine: Engine, loop: AbstractEventLoop) -> LoopDispatcher:
    """Return the dispatcher of a loop; make it if there is none."""
    with lock_of_process(_locks):
        dispatcher = _dispatchers.get((engine, loop))
        if dispatcher is None:
            dispatcher = _dispatchers[engine, loop] = LoopDispatcher(engine, loop)
        return dispatcher


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls a method for as long as its object lives.

    The process refers to every mailbox in use. Through that of a dispatcher, it must not keep a closed loop alive.
    """
    reference = WeakMethod(method)

    def call() -> None:
        bound = reference()
        if bound is not None:
            bound()

    return call


class LoopDispatcher:
    """Waits for all tasks of one loop in one home. Only the loop's thread uses it, except `_on_delivery`."""

    def __init__(self, engine: Engine, loop: AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._users = 0
        self._expected: dict[int, TaskEvent] = {}
        self._step_throttle = LoopThrottle(loop, loop_budget)
        self._wakeup_throttle = LoopThrottle(loop)
        self._mailbox: Mailbox | None = None
        self._reads_mailbox = False
        self._watched_descriptor: int | None = None
        self._watch_timer: Timer | None = None
        self._poll_timer: Timer | None = None
        self._recheck_timer: Timer | None = None
        self._spared_looks = SparedLooks(engine.store)
        self._owners_ahead = 0

    def __repr__(self) -> str:
        waiting, before_a_step = len(self._expected), len(self._step_throttle)
        return f"<LoopDispatcher of {self._engine.directory}: {waiting} wait, {before_a_step} wait to take a step>"

    # ---- users -----------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Count one more task that takes the steps of a call."""
        self._users += 1

    def exit(self) -> None:
        """Count one task less; the last one closes the mailbox and ends the timers."""
        self._users -= 1
        if self._users == 0 and self._pid == os.getpid():
            self._close()

    def _close(self) -> None:
        for timer in (self._poll_timer, self._watch_timer, self._recheck_timer):
            if timer is not None:
                timer.cancel()
        self._poll_timer = self._watch_timer = self._recheck_timer = None
        self._stop_watching()
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            self._stop_reading(mailbox.descriptor if self._reads_mailbox else None)
            self._engine.mailboxes.put(mailbox)

    def mailbox(self, owner: Owner) -> Mailbox:
        """Return the mailbox of all tasks of the loop."""
        if self._mailbox is None:
            mailbox: Mailbox = self._engine.mailboxes.take(owner)
            self._reads_mailbox = self._read(mailbox.descriptor, self._collect)
            mailbox.on_delivery = _weakly(self._on_delivery)
            self._mailbox = mailbox
        return self._mailbox

    def _read(self, descriptor: int | None, callback: Callable[[], None]) -> bool:
        if descriptor is None:
            return False
        try:
            self._loop.add_reader(descriptor, callback)
        except NotImplementedError:  # a loop without readers (Windows' proactor) polls more often instead
            return False
        return True

    def _stop_reading(self, descriptor: int | None) -> None:
        if descriptor is not None and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)

    # ---- waiting ---------------------------------------------------------------------------------------------

    async def wait_for_iteration(self, until: float | None) -> None:
        """Wait for an iteration of the loop that has time for this task, or until a moment."""
        await self._pass(until, first=False)

    async def back_off(self, seconds: float, until: float | None) -> None:
        """Wait for the store to be free. All tasks queue here, and one at a time tries."""
        self._step_throttle.close(seconds)
        await self._pass(until, first=True)

    async def _pass(self, until: float | None, *, first: bool) -> None:
        event = TaskEvent()
        alarm = None
        if until is not None:  # in real time, like the throttle, even if a test moves the engine's clock
            alarm = call_later(self._loop, until - self._engine.clock.now(), event.set)
        self._step_throttle.join(event, first=first)
        try:
            await event.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
            self._step_throttle.leave(event)

    def expect(self, serial: int) -> TaskEvent:
        """Expect wakeups for a serial; return the event that the dispatcher sets when one comes."""
        event = self._expected[serial] = TaskEvent()
        if self._watch_timer is None and not self._engine.is_alone:
            self._watch_timer = call_later(self._loop, WATCH_AFTER_SECONDS, self._start_watching)
        if self._poll_timer is None:
            self._schedule_poll(self._poll_seconds())
        return event

    def forget(self, serial: int, event: TaskEvent) -> None:
        """Expect no more wakeups for a serial."""
        self._wakeup_throttle.leave(event)
        if self._expected.get(serial) is event:
            del self._expected[serial]

    def _tell(self, serials: Iterable[int]) -> None:
        """Let tasks act on their wakeups, or look at the store if they have none."""
        events = [self._expected[serial] for serial in serials if serial in self._expected]
        at_once = len(events) <= MAX_TASKS_AN_ITERATION and not self._wakeup_throttle
        for event in events:
            if not event.wakeups:
                event.wakeups = [LOOK]
            if at_once:
                event.set()
            elif not event.is_set():
                self._wakeup_throttle.join(event)

    # ---- wakeups ---------------------------------------------------------------------------------------------

    def _on_delivery(self) -> None:
        """Collect what a thread of this process has left in the mailbox; called in that thread."""
        if self._loop.is_closed():
            return  # its tasks can't continue; they leave the queue when they are collected
        if threading.get_ident() == self._thread:
            self._collect_delivered()
            return
        with suppress(RuntimeError):  # closed at this moment
            self._loop.call_soon_threadsafe(self._collect_delivered)

    def _collect(self) -> None:
        if self._mailbox is not None:
            self._mailbox.drain()
            self._collect_delivered()

    def _collect_delivered(self) -> None:
        if self._mailbox is None:
            return
        wakeups = self._mailbox.take()
        for wakeup in wakeups:
            event = self._expected.get(wakeup[0])
            if event is not None:
                event.wakeups = [*(event.wakeups or ()), wakeup]
        self._tell([wakeup[0] for wakeup in wakeups])
        if any(wakeup[0] == 0 for wakeup in wakeups):
            self._tell(list(self._expected))
        if len(wakeups) >= PERHAPS_FULL:
            self._attempt(self._tell_answered, again=self._poll_again)

    def _tell_answered(self) -> None:
        """Let tasks look at the store if their requests have left the queue: their wakeups may be lost."""
        owner_id = self._engine.membership.owner_id
        waiting = set(self._engine.store.read(lambda ledger: listings.waiting_serials(ledger.connection, owner_id)))
        self._tell([serial for serial in self._expected if serial not in waiting])

    def _attempt(self, operation: Callable[[], None], again: Callable[[], None]) -> None:
        """Do an operation on behalf of all tasks; if it fails, let each task look at the store and raise the error."""
        try:
            operation()
        except Busy:
            call_later(self._loop, RETRY_SECONDS, again)
        except (Damaged, StoreError):
            self._tell(list(self._expected))

    # ---- the poll --------------------------------------------------------------------------------------------

    def _poll_seconds(self) -> float:
        engine, mailbox = self._engine, self._mailbox
        gets_wakeups = self._reads_mailbox and (mailbox is None or mailbox.is_reachable)
        waiting = min(len(engine.mailboxes), MAX_WAITING_BESIDE)
        return poll_seconds(gets_wakeups, engine.reaper.is_complete, self._owners_ahead, waiting)

    def _schedule_poll(self, seconds: float) -> None:
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        self._poll_timer = call_later(self._loop, seconds, self._poll)

    def _poll(self) -> None:
        """Stand in for suspended and dead processes in front, and for lost wakeups."""
        self._poll_timer = None
        if self._expected and not self._engine.is_alone:
            self._schedule_poll(self._poll_seconds())
            self._attempt(self._look, again=self._poll_again)

    def _poll_again(self) -> None:
        if self._expected:
            self._attempt(self._look, again=self._poll_again)

    def _look(self) -> None:
        engine = self._engine
        engine.store.database.ensure_open()
        now, state = engine.clock.now(), engine.store.database.state()
        if self._spared_looks.may_spare(now):
            return
        self._tell_answered()
        moment, spare_seconds, limit_ids = engine.stand_in()
        self._owners_ahead = 0 if engine.reaper.is_complete else engine.queued.owners_ahead(limit_ids)
        self._spared_looks.looked(now, state, spare_seconds)
        if moment is not None:
            delay = max(0.0, moment - now) + OVERDUE_SECONDS
            if delay < self._poll_seconds():
                self._schedule_poll(delay)

    # ---- deaths ----------------------------------------------------------------------------------------------

    def _start_watching(self) -> None:
        """Watch the lives of the processes in front, now that a task has waited for a while."""
        self._watch_timer = None
        if self._expected:
            self._attempt(self._watch_queues, again=self._start_watching)

    def _watch_queues(self) -> None:
        self._engine.reaper.watch_in_front(self._engine.queued.queues()[0], None)
        self._watch()
        if not self._engine.reaper.is_complete:
            self._schedule_poll(self._poll_seconds())

    def _watch(self) -> None:
        descriptor = self._engine.reaper.descriptor
        if self._users and descriptor != self._watched_descriptor:
            self._stop_watching()
            if self._read(descriptor, self._reap_soon):
                self._watched_descriptor = descriptor
        recheck_at = self._engine.reaper.recheck_at
        if self._users and recheck_at is not None and self._recheck_timer is None:
            self._recheck_timer = call_later(self._loop, recheck_at - self._engine.clock.now(), self._recheck)

    def _stop_watching(self) -> None:
        descriptor, self._watched_descriptor = self._watched_descriptor, None
        self._stop_reading(descriptor)

    def _recheck(self) -> None:
        self._recheck_timer = None
        self._reap_soon()

    def _reap_soon(self) -> None:
        self._stop_watching()  # the descriptor stays readable until the news has been read
        self._attempt(self._reap, again=self._reap_soon)

    def _reap(self) -> None:
        self._engine.reaper.reap_suspects()
        self._watch()
