"""Where the tasks of one event loop are told: one mailbox, one slow poll and one watch for all of them.

A reception exists while a task of its loop is on its way through the engine, and holds on to the loop's means
(a reader, timers) for just as long: nothing is left behind by a loop that is closed. The loop in turn holds on to the
reception, and so to the tasks, of which it knows only weakly itself.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from localconc._engine import admission
from localconc._engine.acquiring import WATCH_AFTER_SECONDS, Nap, poll_seconds
from localconc._engine.faults import Busy, Damaged
from localconc._engine.line import MOST_TASKS_A_TURN, Arrival, Line, pace
from localconc._engine.wakeup import OVERDUE_SECONDS, QUICK_POLL_SECONDS, Mailbox
from localconc.errors import StoreError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable, Iterable

    from localconc._engine.engine import Engine
    from localconc._engine.ledger import Ledger

#: A mailbox that held so many signals may have been full (on Linux it holds ten): some may not have got in.
PERHAPS_FULL = 8

#: After so long, what nobody in particular waits for is tried again on a store that was busy.
RETRY_SECONDS = 0.005

#: Queues that one poll looks at; the next one goes on from there.
MOST_QUEUES_A_POLL = 256

_receptions: WeakValueDictionary[tuple[Engine, AbstractEventLoop], Reception] = WeakValueDictionary()
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def reception_of(engine: Engine, loop: AbstractEventLoop) -> Reception:
    """The reception of a loop, made when it is first needed."""
    with _lock:
        reception = _receptions.get((engine, loop))
        if reception is None:
            reception = _receptions[engine, loop] = Reception(engine, loop)
        return reception


class Reception:
    """One engine, for one event loop; to be used in the loop's thread."""

    def __init__(self, engine: Engine, loop: AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._pid = os.getpid()
        self._visitors = 0
        self._expected: dict[int, Arrival] = {}
        self._entrance = Line(loop, pace)
        self._told = Line(loop)
        self._mailbox: Mailbox | None = None
        self._hears = False
        self._watched_descriptor: int | None = None
        self._watch_timer: TimerHandle | None = None
        self._poll_timer: TimerHandle | None = None
        self._last_polled = 0
        self._store_identity = ""

    def __repr__(self) -> str:
        return f"<Reception of {self._engine.directory}: {len(self._expected)} wait, {len(self._entrance)} in line>"

    # ---- coming and going ------------------------------------------------------------------------------------

    def enter(self) -> None:
        self._visitors += 1

    def leave(self) -> None:
        """The last one switches off the light."""
        self._visitors -= 1
        if self._visitors == 0 and self._pid == os.getpid():
            self._close()

    def _close(self) -> None:
        for timer in (self._poll_timer, self._watch_timer):
            if timer is not None:
                timer.cancel()
        self._poll_timer = self._watch_timer = None
        self._stop_watching()
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            self._stop_reading(mailbox.descriptor if self._hears else None)
            self._engine.put_mailbox(mailbox)

    def mailbox(self) -> Mailbox:
        """The mailbox of all tasks here."""
        if self._mailbox is None:
            mailbox = self._engine.take_mailbox()
            self._hears = self._read(mailbox.descriptor, self._collect_mail)
            if mailbox.descriptor is not None and not self._hears:
                self._engine.put_mailbox(mailbox)
                mailbox = Mailbox()  # nobody would read it: let nobody send
            self._mailbox = mailbox
            self._store_identity = self._engine.database.store_identity
        return self._mailbox

    def _read(self, descriptor: int | None, callback: Callable[[], None]) -> bool:
        if descriptor is None:
            return False
        try:
            self._loop.add_reader(descriptor, callback)
        except NotImplementedError:  # a loop without readers (Windows' proactor): the quick poll stands in
            return False
        return True

    def _stop_reading(self, descriptor: int | None) -> None:
        if descriptor is not None and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)

    # ---- waiting ---------------------------------------------------------------------------------------------

    async def line_up(self, until: float | None) -> None:
        """Wait for one's turn in the loop, behind all who came before; or until a moment."""
        await self._pass(until, first=False)

    async def nap(self, nap: Nap) -> None:
        """Wait for the store to be free: one looks on behalf of all, who line up behind."""
        self._entrance.close(nap.seconds)
        await self._pass(nap.until, first=True)

    async def _pass(self, until: float | None, *, first: bool) -> None:
        arrival = Arrival()
        alarm = None
        if until is not None:  # in real time, whatever the engine's clock is: the line moves in it
            alarm = self._loop.call_later(max(0.0, until - self._engine.clock.now()), arrival.set)
        self._entrance.join(arrival, first=first)
        try:
            await arrival.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
            self._entrance.leave(arrival)

    def expect(self, ticket: int) -> Arrival:
        """Wait to be told of a ticket; what is returned is set then."""
        if ticket in self._expected:  # of another store that was in its place: it is to see that it is lost
            self._expected[ticket].set()
        arrival = self._expected[ticket] = Arrival()
        if self._watch_timer is None:
            self._watch_timer = self._loop.call_later(WATCH_AFTER_SECONDS, self._start_watching)
        if self._poll_timer is None:
            self._poll_timer = self._loop.call_later(self._poll_seconds(), self._poll)
        return arrival

    def forget(self, ticket: int, arrival: Arrival) -> None:
        """Wait no longer."""
        self._told.leave(arrival)
        if self._expected.get(ticket) is arrival:
            del self._expected[ticket]

    def _tell(self, tickets: Iterable[int]) -> None:
        arrivals = [self._expected[ticket] for ticket in tickets if ticket in self._expected]
        at_once = len(arrivals) <= MOST_TASKS_A_TURN and not self._told
        for arrival in arrivals:
            if at_once:
                arrival.set()
            elif not arrival.is_set():
                self._told.join(arrival)

    # ---- signals ---------------------------------------------------------------------------------------------

    def _collect_mail(self) -> None:
        assert self._mailbox is not None
        self._mailbox.drain()
        signals = self._mailbox.take()
        for signal in signals:
            if signal.ticket in self._expected:
                self._expected[signal.ticket].signals = [signal]
        self._tell([signal.ticket for signal in signals])
        if len(signals) >= PERHAPS_FULL:
            self._attempt(self._tell_answered, again=self._poll)

    def _tell_answered(self) -> None:
        self._tell(self._engine.look_up(lambda ledger: ledger.answered_tickets(self._engine.owner_id)))

    def _attempt(self, operation: Callable[[], None], again: Callable[[], None]) -> None:
        """Do what nobody in particular has asked for; where it fails, those who wait see for themselves."""
        try:
            operation()
        except Busy:
            self._loop.call_later(RETRY_SECONDS, again)
        except (Damaged, StoreError):
            self._tell(list(self._expected))

    # ---- the poll --------------------------------------------------------------------------------------------

    def _poll_seconds(self) -> float:
        return poll_seconds(self._engine) if self._hears else QUICK_POLL_SECONDS

    def _poll(self) -> None:
        """Look without having been told: for signals that were lost, and for those who should act but are stopped."""
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None
        if self._expected:
            self._attempt(self._look_around, again=self._poll)
            self._watch()
            self._poll_timer = self._poll_timer or self._loop.call_later(self._poll_seconds(), self._poll)

    def _look_around(self) -> None:
        engine = self._engine
        if engine.database.store_identity != self._store_identity:  # another store is in its place: all places are lost
            self._store_identity = engine.database.store_identity
            self._tell(list(self._expected))
            return
        self._tell_answered()
        queues = self._some_queues()
        engine.start_watching()
        if not engine.watches_everybody:
            engine.reap_in_front(queues)
        overdue = self._overdue(queues)
        if overdue:
            due = engine.hand_over_for_others(sorted(set(overdue)))
            if due is not None:
                delay = max(0.0, due - engine.clock.now()) + OVERDUE_SECONDS
                if delay < self._poll_seconds():
                    self._poll_timer = self._loop.call_later(delay, self._poll)

    def _some_queues(self) -> list[int]:
        """Limits that somebody waits for; if there are many, other ones each time."""
        limit_ids = sorted(self._engine.look_up(lambda ledger: ledger.queue_lengths()))
        left = [limit_id for limit_id in limit_ids if limit_id > self._last_polled]
        queues = (left or limit_ids)[:MOST_QUEUES_A_POLL]
        self._last_polled = queues[-1] if len(queues) < len(limit_ids) else 0
        return queues

    def _overdue(self, limit_ids: list[int]) -> list[int]:
        """Those whose first in line could have been admitted by now; the first in line here are told to look."""
        overdue: list[int] = []
        first_here: list[int] = []

        def work(ledger: Ledger) -> None:
            now = self._engine.clock.now()
            for row in ledger.limits_with_ids(limit_ids):
                first = ledger.first_waiter(row.id) if row.decay > 0 else None
                if first is None:
                    continue
                waiter, _ = first
                first_here.append(waiter.ticket)
                rows = ledger.limits_with_ids(waiter.queued_on)
                if admission.obstacle(waiter.slots, rows, now, waiter.ticket) is None:
                    overdue.extend(waiter.queued_on)

        self._engine.look_up(work)
        self._tell(first_here)
        return overdue

    # ---- deaths ----------------------------------------------------------------------------------------------

    def _start_watching(self) -> None:
        """Somebody has waited for a while: learn of the deaths of those in front."""
        self._watch_timer = None
        if not self._expected:
            return
        self._attempt(self._engine.start_watching, again=self._start_watching)
        self._watch()
        if self._poll_timer is not None and self._poll_timer.when() > self._loop.time() + self._poll_seconds():
            self._poll_timer.cancel()
            self._poll_timer = self._loop.call_later(self._poll_seconds(), self._poll)

    def _watch(self) -> None:
        descriptor = self._engine.watch.descriptor
        if self._visitors and descriptor != self._watched_descriptor:
            self._stop_watching()
            if self._read(descriptor, self._look_after_deaths):
                self._watched_descriptor = descriptor

    def _stop_watching(self) -> None:
        descriptor, self._watched_descriptor = self._watched_descriptor, None
        self._stop_reading(descriptor)

    def _look_after_deaths(self) -> None:
        self._stop_watching()  # it stays readable until it has been looked after
        self._attempt(self._reap, again=self._look_after_deaths)

    def _reap(self) -> None:
        self._engine.reap_suspects()
        self._watch()
