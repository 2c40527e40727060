"""Take slots, give them back, take part in the queue, notice deaths: what this process does in a store.

Everything here tries once and never waits; `acquiring` and the faces decide how a thread or a task pauses.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from localconc._engine import admission
from localconc._engine.answers import Outlook, Refused, Waiting
from localconc._engine.clock import SystemClock
from localconc._engine.description import describe
from localconc._engine.faults import Busy, Damaged
from localconc._engine.ledger import GIVE_BACK_AT_ONCE, LOOK_AT_WAITER, TAKE_AT_ONCE, Ledger
from localconc._engine.model import CONCURRENCY, Hold, LimitRow, Party, Request, Share, WaiterRow
from localconc._engine.net import Nets
from localconc._engine.occupancy import Occupancy
from localconc._engine.schema import GRANTED, WAITING
from localconc._engine.subscribers import ACQUIRED, RELEASED, publish, subscribers
from localconc._engine.turn import Turn
from localconc._engine.wakeup import FAR_BEHIND, Mailbox, Signal, open_mailbox
from localconc._engine.watching import WatchingStore
from localconc.errors import ConcurrencySlotAcquisitionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from localconc._engine.clock import Clock

logger = logging.getLogger("localconc")

#: Whoever held for longer may well be waited for: the short way of giving back would often be in vain.
SHORT_HOLD_SECONDS = 0.0005


class Engine(WatchingStore):
    """One home, in this process: its store, and this process's part in taking, queueing and giving back.

    Args:
        directory: the home.
        clock: what time it is; the machine's own unless a test moves it.
        mailbox: makes mailboxes for waiters.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock | None = None,
        mailbox: Callable[[Path], Mailbox] = open_mailbox,
    ) -> None:
        super().__init__(directory, clock or SystemClock())
        self._serials = itertools.count(1)
        self._make_mailbox = mailbox
        self._mailboxes: list[Mailbox] = []
        self._free_mailboxes: list[Mailbox] = []
        self.nets = Nets(self._give_back_lost)
        self._arrears: deque[int] = deque()
        self._arrears_thread: threading.Thread | None = None

    # ---- taking ----------------------------------------------------------------------------------------------

    def take_at_once(self, request: Request, thread: str) -> Occupancy | None:
        """Take slots in the common case, in one statement; None where it takes a closer look."""
        share = self._known.get(request.names[0])
        if (
            share is None
            or len(request.names) != 1
            or (request.limit is not None and request.limit != share.limit)
            or request.slot_decay_per_second
            or request.mode != CONCURRENCY
            or (time.monotonic() >= self.database.verify_after and not self._is_open())
        ):
            return None
        serial, owner_id = next(self._serials), self.owner_id
        wall, now = self.clock.wall(), self.clock.now()
        hold = Hold((share,), request.slots, wall, now, thread)
        occupancy = Occupancy(self, serial, hold, 0.0)
        self.nets.guard(serial, occupancy)
        self.held[serial] = hold
        taken = 0
        try:
            taken = self.database.execute_alone(
                TAKE_AT_ONCE,
                (share.limit_id, share.revision, share.limit, owner_id, serial, request.slots, wall, now, thread),
            )
        except (Busy, Damaged):
            pass
        except BaseException:
            self.abandon(serial)
            raise
        if taken != 1:
            self._let_go(serial)
            return None
        if subscribers:
            publish(ACQUIRED, wall, hold.shares, request.slots, owner_id, serial)
        return occupancy

    def _is_open(self) -> bool:
        try:
            self.database.ensure_open()
        except (Busy, Damaged, StoreError):
            return False  # the longer way says what is wrong
        return True

    def ask(
        self, request: Request, party: Party, mailbox: Callable[[], Mailbox] | None, *, is_first: bool = True
    ) -> Occupancy | Waiting | Refused:
        """Take the slots, or join the queue (where there is a mailbox to be told by), or count a refusal.

        Args:
            is_first: whether a refusal counts: once for each attempt.

        Raises:
            ConcurrencySlotAcquisitionError: the request can never be admitted as things are.
        """

        def work(turn: Turn) -> tuple[Hold | Waiting | Refused, bool]:
            rows = admission.resolve(turn, request)
            if any(row.decay > 0 and row.first_ticket is not None for row in rows):
                admission.hand_over(turn, [row.id for row in rows])  # those before us whose slots have drained
                rows = turn.ledger.limits_with_ids([row.id for row in rows])
            if admission.obstacle(request.slots, rows, turn.now, None) is not None:
                return self._queue_up_or_refuse(turn, request, party, rows, mailbox, is_first), False
            shares = tuple(admission.grant(turn, request, rows, party))
            hold = Hold(shares, request.slots, turn.wall, turn.now, party.thread)
            self._hold(request, party, hold)
            return hold, len(rows) == 1 and rows[0].decay == 0

        answer, is_plain = self.in_turn(work)
        if not isinstance(answer, Hold):
            return answer
        if is_plain:
            self._known[answer.shares[0].name] = answer.shares[0]
        return self._admitted(party, answer, 0.0)

    def _queue_up_or_refuse(
        self,
        turn: Turn,
        request: Request,
        party: Party,
        rows: list[LimitRow],
        mailbox: Callable[[], Mailbox] | None,
        counts: bool,
    ) -> Waiting | Refused:
        ids = [row.id for row in rows]
        reason = describe(turn, rows, None) if mailbox is None else ""
        retry_after = admission.deny(turn, request, rows) if counts else 0.0
        if mailbox is None:
            return Refused(reason, ids)
        address, secret = mailbox().address, int.from_bytes(os.urandom(7)) + 1
        ticket = turn.ledger.insert_waiter(party, request, ids, address, secret, turn.wall)
        self._known.pop(request.names[0], None)  # crowded: the short way would be in vain
        return Waiting(
            ticket, secret, party, tuple(map(Share.of, rows)), any(row.decay > 0 for row in rows), retry_after
        )

    def _hold(self, request: Request, party: Party, hold: Hold) -> None:
        if request.mode == CONCURRENCY and hold.shares:
            self.held[party.serial] = hold

    def _admitted(self, party: Party, hold: Hold, waited_seconds: float) -> Occupancy:
        occupancy = Occupancy(self, party.serial, hold, waited_seconds)
        if party.serial in self.held:
            self.nets.guard(party.serial, occupancy)
        else:
            self._let_go(party.serial)
        if subscribers:
            publish(ACQUIRED, hold.acquired_at, hold.shares, hold.slots, party.owner_id, party.serial)
        return occupancy

    def new_party(self, thread: str) -> Party:
        """Number a new acquisition of this process. The store must be open."""
        return Party(self.owner_id, next(self._serials), thread)

    # ---- waiting ---------------------------------------------------------------------------------------------

    def look(self, waiting: Waiting, *, closely: bool = True) -> Outlook:
        """How a waiting request stands; with a close look, also when it can be admitted if slots only have to drain."""
        newest_owner_id, *row = self.database.row_alone(LOOK_AT_WAITER, (waiting.ticket,)) or (0,)
        if not row or WaiterRow._make(row).party != waiting.party:  # in another store it is somebody else's
            raise StoreError(
                f"A waiting request vanished from the database {self.database.path}: was it deleted or replaced "
                "while it was in use? Call again."
            )
        waiter = WaiterRow._make(row)
        if waiter.state != WAITING:
            return Outlook(waiter, None, [], newest_owner_id)
        due_at = self._due_at(waiting.ticket) if closely else None
        return Outlook(None, due_at, waiter.queued_on, newest_owner_id)

    def _due_at(self, ticket: int) -> float | None:
        """When a request can be admitted, if it is first in its queues and only decay stands before it."""

        def work(ledger: Ledger) -> float | None:
            waiter = ledger.waiter(ticket)
            if waiter is None:
                return None
            rows = ledger.limits_with_ids(waiter.queued_on)
            now = self.clock.now()
            hindered = admission.obstacle(waiter.slots, rows, now, ticket)
            return now if hindered is None else hindered.until

        return self.look_up(work)

    def is_far_behind(self, waiting: Waiting) -> bool:
        """Whether many other processes are in front of a waiting request; no, where that can't be told now."""

        def look(ledger: Ledger) -> bool:
            return any(ledger.owners_ahead(share.limit_id, waiting.ticket) >= FAR_BEHIND for share in waiting.shares)

        with suppress(Busy, Damaged, StoreError):
            return self.look_up(look)
        return False

    def hand_over(self, limit_ids: list[int]) -> None:
        """Admit whoever can be admitted by now, whoever it is."""
        self.in_turn(lambda turn: admission.hand_over(turn, limit_ids))

    def hand_over_for_others(self, limit_ids: list[int]) -> float | None:
        """Admit who should have been by now; if there was somebody, returns when the next can be."""

        def work(turn: Turn) -> float | None:
            admission.hand_over(turn, limit_ids)
            admitted = any(signal.admitted_since for _, signal in turn.signals)
            return admission.next_due(turn, limit_ids) if admitted else None

        return self.in_turn(work)

    def receive(self, request: Request, waiting: Waiting, answer: WaiterRow, waited_seconds: float) -> Occupancy:
        """Accept the answer to a request that waited.

        Raises:
            ConcurrencySlotAcquisitionError: the request was refused meanwhile.
        """
        if answer.state != GRANTED:
            self._answered.append(answer.ticket)
            raise ConcurrencySlotAcquisitionError(answer.answer or "refused")
        hold = admission.granted_hold(answer, waiting.shares)
        return self._receive(request, waiting, hold, waited_seconds)

    def receive_signal(
        self, request: Request, waiting: Waiting, signals: Iterable[Signal], waited_seconds: float
    ) -> Occupancy | None:
        """Accept a signal that proves to tell of the grant; None where the store has to be looked at."""
        for signal in signals:
            if signal.ticket == waiting.ticket and signal.secret == waiting.secret:
                hold = Hold(
                    waiting.shares, request.slots, signal.admitted_at, signal.admitted_since, waiting.party.thread
                )
                return self._receive(request, waiting, hold, waited_seconds)
        return None

    def _receive(self, request: Request, waiting: Waiting, hold: Hold, waited_seconds: float) -> Occupancy:
        self._answered.append(waiting.ticket)
        self._hold(request, waiting.party, hold)
        return self._admitted(waiting.party, hold, waited_seconds)

    def deny(self, request: Request, waiting: Waiting) -> float:
        """Count one more refused attempt of a waiting request; returns when the next retry is worth while."""

        def work(turn: Turn) -> float:
            rows = turn.ledger.limits_with_ids(waiting.limit_ids)
            return admission.deny(turn, request, rows)

        return self.in_turn(work)

    def withdraw(self, waiting: Waiting) -> str:
        """Leave the queue; returns what the request waited for, in words."""

        def work(turn: Turn) -> str:
            rows = turn.ledger.limits_with_ids(waiting.limit_ids)
            reason = describe(turn, rows, waiting.ticket)
            admission.withdraw(turn, waiting.ticket, self.owner_id)
            return reason

        return self.in_turn(work)

    # ---- giving back -----------------------------------------------------------------------------------------

    def give_back_at_once(self, occupancy: Occupancy) -> bool:
        """Give slots back in the common case, in one statement; False where it takes a closer look."""
        serial = occupancy.serial
        hold = self.held.get(serial)
        now = self.clock.now()
        if (
            hold is None
            or now > hold.since + SHORT_HOLD_SECONDS
            or len(hold.shares) != 1
            or hold.shares[0].name not in self._known
            or self.database.connection is None
        ):
            return False
        try:
            changed = self.database.execute_alone(
                GIVE_BACK_AT_ONCE, (now, hold.shares[0].limit_id, self.owner_id, serial)
            )
        except (Busy, Damaged, StoreError):
            return False
        except BaseException:
            self.abandon(serial)
            raise
        if changed == 1:
            self._given_back(serial, hold, now)
        return changed == 1

    def give_back(self, occupancy: Occupancy) -> bool:
        """Give an acquisition's slots back, once, and hand them to the next in line; returns whether there is one.

        Raises:
            Busy: not now; nothing was given back.
        """
        serial = occupancy.serial
        hold = self.held.get(serial)
        if hold is None:
            return False  # the parent's, seen by a forked child; or given back already

        def work(turn: Turn) -> tuple[bool, float, bool]:
            given_back = admission.give_back(turn, hold.shares, self.owner_id, serial)
            return given_back, turn.now, bool(turn.signals)

        given_back, now, handed_over = self.in_turn(work)
        if given_back:
            self._given_back(serial, hold, now)
        else:
            self._let_go(serial)
        return handed_over

    def _given_back(self, serial: int, hold: Hold, now: float) -> None:
        self._let_go(serial)
        if subscribers:
            released_at = hold.acquired_at + (now - hold.since)  # as the history has it
            publish(RELEASED, released_at, hold.shares, hold.slots, self.owner_id, serial)

    def _let_go(self, serial: int) -> None:
        """Nothing is held by this number (any more)."""
        self.held.pop(serial, None)
        self.nets.pop(serial, None)

    def disown(self) -> None:
        """Forget whatever is held, without giving it back: the store that it was taken in is no more, or not ours."""
        self.held.clear()
        self.nets.clear()

    def abandon(self, serial: int) -> None:
        """Undo an acquisition that was interrupted, now or as soon as the store allows."""
        if self.is_parents:
            return
        try:
            self._abandon(serial)
        except Exception:
            self.give_back_later(serial)
        except BaseException:  # interrupted again
            self.give_back_later(serial)
            raise

    def _abandon(self, serial: int) -> None:
        self.in_turn(lambda turn: admission.abandon(turn, self.owner_id, serial))
        self._let_go(serial)

    def give_back_later(self, serial: int) -> None:
        """Give back in the background, and keep trying: until it holds, or this process's death does it."""
        if self.is_parents:
            return
        self._arrears.append(serial)
        thread = self._arrears_thread
        if thread is None or not thread.is_alive():
            thread = threading.Thread(target=self._pay_arrears, name="localconc-arrears", daemon=True)
            with suppress(RuntimeError):  # no thread can be started: the next one to give back late tries again
                thread.start()
                self._arrears_thread = thread

    def _give_back_lost(self) -> None:
        for serial in self.nets.take_lost():
            self.give_back_later(serial)

    def report_late_give_back(self, error: Exception) -> None:
        """Say that slots could not be given back yet."""
        logger.warning(
            "Slots could not be given back yet (%s); it is tried again in the background until it succeeds.",
            str(error) or "the database is held up by another process",
        )

    def _pay_arrears(self) -> None:
        pause_seconds = 0.001
        while self._arrears:
            serial = self._arrears.popleft()
            try:
                self._abandon(serial)
                pause_seconds = 0.001
            except Exception:  # whatever keeps it from being given back: nobody else will try
                self._arrears.append(serial)
                time.sleep(pause_seconds)
                pause_seconds = min(1.0, pause_seconds * 2)
            if not self._arrears:
                self._arrears_thread = None  # who comes from now on starts another; who came before is seen above

    # ---- mailboxes -------------------------------------------------------------------------------------------

    def take_mailbox(self) -> Mailbox:
        """A mailbox for one wait; put it back afterwards."""
        with suppress(IndexError):
            return self._free_mailboxes.pop()
        mailbox = self._make_mailbox(self.directory)
        self._mailboxes.append(mailbox)
        return mailbox

    def put_mailbox(self, mailbox: Mailbox) -> None:
        self._free_mailboxes.append(mailbox)

    # ---- the end, and forks ----------------------------------------------------------------------------------

    def close(self) -> None:
        super().close()
        self.nets.clear()  # what is still held goes back with the end of the process
        for mailbox in self._free_mailboxes:
            mailbox.abandon()
        self._free_mailboxes.clear()

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self.disown()
        self._arrears.clear()
        for mailbox in self._mailboxes:
            mailbox.abandon()
