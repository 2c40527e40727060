"""What must hold of a store after every transaction, and between two of them."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import NamedTuple

from localconc._engine.core import rules
from localconc._engine.store.rows.schema import GRANTED, INSTANT, PASSED_OVER, WAITING
from tests.kit.invariants import check_queue, totals_that_differ

TOLERANCE_SLOTS = 1e-3

#: Owner, serial and limit: one holder of one limit.
Hold = tuple[int, int, int]


class LimitState(NamedTuple):
    """A limit at one moment; `occupied` is in slots, with fractions while they drain."""

    limit: int
    occupied: float
    admits_by_time: bool


@dataclass
class Seen:
    """The store at one moment.

    Attributes:
        limits: by id, those that are enforced.
        queues: tickets by limit, in order.
        slots: what each queued request asks for.
        admitted: limits of each ticket that was admitted from the queue and holds, or whose process has not looked yet.
        passed_over: tickets of stopped processes.
        holds: what the rows say.
        numbers: slots and slot numbers of each holder that has asked for them.
        paused: until when limits are paused.
        rate_limited: the latest acquisition of `rate_limit`, by limit.
    """

    limits: dict[int, LimitState] = field(default_factory=dict)
    queues: dict[int, list[int]] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    admitted: dict[int, set[int]] = field(default_factory=dict)
    passed_over: set[int] = field(default_factory=set)
    holds: set[Hold] = field(default_factory=set)
    numbers: dict[Hold, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    paused: dict[int, float] = field(default_factory=dict)
    rate_limited: dict[int, int] = field(default_factory=dict)


class Invariants:
    """The invariants of one store, which are checked after each step of a schedule.

    Args:
        connection: one that only looks.

    Attributes:
        newly_passed_over: how many waiters were passed over in the last step.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._before = Seen()
        self._forgiven: set[Hold] = set()
        self._may_exceed: set[int] = set()
        self._have_drained: set[int] = set()
        self.newly_passed_over = 0

    def forgive(self, name: str) -> None:
        """An operator is about to set what is occupied of a limit: its holders go on without a row."""
        rows = self._connection.execute(
            "SELECT owner_id, serial, limit_id FROM slots WHERE limit_id = (SELECT id FROM limits WHERE name = ?)",
            (name,),
        ).fetchall()
        self._forgiven.update(rows)
        self._may_exceed.update(limit_id for _, _, limit_id in rows)

    def check(self, inside: list[Hold], now: float) -> None:
        """Check everything.

        Args:
            inside: what processes hold by their own records.
            now: the boot clock.
        """
        self._connection.execute("BEGIN")  # one consistent look
        try:
            seen = self._check_one_moment(inside, now)
        finally:
            self._connection.execute("ROLLBACK")
        self.newly_passed_over = len(seen.passed_over - self._before.passed_over)
        self._before = seen
        self._may_exceed.clear()

    def _check_one_moment(self, inside: list[Hold], now: float) -> Seen:
        seen = self._see(now)
        assert totals_that_differ(self._connection) == [], "a total differs from its rows"
        check_queue(self._connection)
        self._check_that_limits_hold(seen)
        self._check_that_records_have_rows(seen, inside)
        self._check_the_order(seen)
        self._check_that_nobody_waits_for_nothing(seen)
        self._check_that_numbers_are_not_shared(seen)
        self._check_that_pauses_are_kept(seen, now)
        return seen

    # ---- looking ---------------------------------------------------------------------------------------------

    def _see(self, now: float) -> Seen:
        seen = Seen()
        rows = self._connection.execute(
            'SELECT limits.id, limits."limit", slot_decay_per_second, slots.slots, coalesce(drained_at, 0), '
            "paused_until FROM limits JOIN slots ON limit_id = limits.id AND owner_id = 0 WHERE active"
        )
        for limit_id, limit, decay, slots, drained_at, paused_until in rows:
            occupied = rules.occupied_slots(drained_at, now, decay) if decay > 0 else slots
            seen.limits[limit_id] = LimitState(limit, occupied, decay > 0 or paused_until is not None)
            if paused_until is not None:
                seen.paused[limit_id] = paused_until
        drain = self._connection.execute("SELECT id FROM limits WHERE slot_decay_per_second > 0")  # also while disabled
        self._have_drained.update(limit_id for (limit_id,) in drain)
        for limit_id, ticket in self._connection.execute("SELECT limit_id, ticket FROM queue ORDER BY ticket"):
            seen.queues.setdefault(limit_id, []).append(ticket)
        for ticket, state, slots, limit_ids in self._connection.execute(
            "SELECT ticket, state, slots, limit_ids FROM waiters"
        ):
            if state == WAITING:
                seen.slots[ticket] = slots
            elif state == GRANTED:
                seen.admitted[ticket] = set(json.loads(limit_ids))
            elif state == PASSED_OVER:
                seen.passed_over.add(ticket)
        for limit_id, owner_id, serial, ticket, slots, numbers in self._connection.execute(
            "SELECT limit_id, owner_id, serial, ticket, slots, numbers FROM slots WHERE owner_id > 0"
        ):
            seen.holds.add((owner_id, serial, limit_id))
            if numbers is not None:
                seen.numbers[owner_id, serial, limit_id] = slots, tuple(map(int, numbers.split(",")))
            if ticket is not None:
                seen.admitted.setdefault(ticket, set()).add(limit_id)
        seen.rate_limited.update(
            self._connection.execute(f"SELECT limit_id, max(seq) FROM history WHERE ending = {INSTANT} GROUP BY 1")
        )
        return seen

    # ---- the invariants --------------------------------------------------------------------------------------

    def _check_that_limits_hold(self, seen: Seen) -> None:
        """Nobody is admitted beyond a limit; what was held before it was lowered stays."""
        for limit_id, state in seen.limits.items():
            before = self._before.limits.get(limit_id)
            most = max(state.limit, 0.0 if before is None else before.occupied)
            if limit_id not in self._may_exceed and not (before is None and self._was_known(limit_id)):
                assert state.occupied <= most + TOLERANCE_SLOTS, f"limit {limit_id}: {state}, before: {before}"

    def _was_known(self, limit_id: int) -> bool:
        """Whether a limit was disabled in the last step: what it was occupied by then is not in `before`."""
        return any(held == limit_id for _, _, held in self._before.holds)

    def _check_that_records_have_rows(self, seen: Seen, inside: list[Hold]) -> None:
        """What a process holds is in the store, unless an operator has forgotten it: no slot is given twice."""
        lost = [hold for hold in inside if hold not in seen.holds and hold not in self._forgiven]
        assert lost == [], f"a process is inside, and holds nothing by the rows: {lost}"

    def _check_the_order(self, seen: Seen) -> None:
        """Nobody is admitted past a request that was ahead of it in the queue of one of its limits, and still is."""
        for ticket in seen.admitted.keys() - self._before.admitted.keys():
            for limit_id in seen.admitted[ticket]:
                stayed = set(seen.queues.get(limit_id, ())) & set(self._before.queues.get(limit_id, ()))
                overtaken = [other for other in stayed if other < ticket]
                assert not overtaken, f"ticket {ticket} overtook {overtaken} on limit {limit_id}"

    def _check_that_nobody_waits_for_nothing(self, seen: Seen) -> None:
        """The first in all of its queues waits only for slots that are occupied, or for a moment to come."""
        places: dict[int, list[int]] = {}
        for limit_id, tickets in seen.queues.items():
            for ticket in tickets:
                places.setdefault(ticket, []).append(limit_id)
        for ticket, slots in seen.slots.items():
            limit_ids = places[ticket]
            assert all(limit_id in seen.limits for limit_id in limit_ids), f"{ticket} waits for a limit not enforced"
            states = [seen.limits[limit_id] for limit_id in limit_ids]
            is_first = all(seen.queues[limit_id][0] == ticket for limit_id in limit_ids)
            has_room = all(state.limit > 0 and state.occupied + slots <= state.limit for state in states)
            by_time = any(state.admits_by_time for state in states)
            assert not (is_first and has_room and not by_time), f"{ticket} waits for nothing"

    # ---- slot numbers ----------------------------------------------------------------------------------------

    def _check_that_numbers_are_not_shared(self, seen: Seen) -> None:
        """No two holders of a limit have the same number; each has one for each slot that has not drained."""
        taken: set[tuple[int, int]] = set()
        for (_, _, limit_id), (slots, numbers) in seen.numbers.items():
            assert list(numbers) == sorted(set(numbers)), f"not ascending: {numbers}"
            assert len(numbers) == slots or limit_id in self._have_drained, f"{slots} slots, but the numbers {numbers}"
            shared = taken & {(limit_id, number) for number in numbers}
            assert not shared, f"two holders have the same slot (limit, number): {shared}"
            taken |= {(limit_id, number) for number in numbers}

    def check_numbers(self, owner_id: int, serial: int, given: dict[int, tuple[int, ...] | None]) -> None:
        """Check what one acquisition was told: the numbers that it had before, or the lowest that were free.

        Args:
            given: its numbers by limit; None where slots drain.
        """
        seen = self._see(0.0)
        for limit_id, numbers in given.items():
            hold = owner_id, serial, limit_id
            if hold in self._forgiven:
                continue  # its numbers stay readable, and others may get them
            if numbers is None:
                assert limit_id in self._have_drained
                continue
            assert seen.numbers[hold][1] == numbers
            before = self._before.numbers.get(hold)
            if before is not None:
                assert numbers == before[1], "an acquisition's numbers have changed"
                continue
            others = {number for other, (_, its) in seen.numbers.items() if other[2] == limit_id for number in its}
            others -= set(numbers)
            free = [number for number in range(len(others) + len(numbers)) if number not in others]
            assert list(numbers) == free[: len(numbers)], f"{numbers} are not the lowest free ones beside {others}"
            state = seen.limits.get(limit_id)
            if state is not None and state.occupied <= state.limit and limit_id not in self._have_drained:
                assert max(numbers) < state.limit, f"{numbers} of a limit of {state.limit}"

    # ---- pauses ----------------------------------------------------------------------------------------------

    def _check_that_pauses_are_kept(self, seen: Seen, now: float) -> None:
        """Nobody is admitted to a limit that was paused before the step, and is still."""
        paused = {limit_id for limit_id, until in self._before.paused.items() if until > now} & {
            limit_id for limit_id, until in seen.paused.items() if until > now
        }
        admitted = [hold for hold in seen.holds - self._before.holds if hold[2] in paused]
        assert not admitted, f"admitted during a pause: {admitted}"
        for limit_id in paused:
            assert seen.rate_limited.get(limit_id) == self._before.rate_limited.get(limit_id), (
                f"rate_limit was admitted to limit {limit_id} during a pause"
            )
