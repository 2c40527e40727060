"""One transaction: the ledger at one moment, what happens in it, and what is to be told once it has committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine import rules

if TYPE_CHECKING:
    from typing import Any

    from localconc._engine.ledger import Ledger
    from localconc._engine.wakeup import Signal


class Turn:
    """One transaction.

    Attributes:
        now: the clock since boot, for arithmetic.
        wall: the wall clock, for people.
        signals: mailbox of those to be told, and what, after the commit.
        warnings: kind, name of a limit and what to say of it after the commit, once for each kind and name.
        definitions: entries for the journal, before the commit.
        changed: limits whose definition or occupation was changed by hand.
        unsettled: tickets of those who wait on changed limits, to be answered before the commit.
    """

    __slots__ = ("changed", "definitions", "ledger", "now", "signals", "unsettled", "wall", "warnings")

    def __init__(self, ledger: Ledger, now: float, wall: float) -> None:
        self.ledger = ledger
        self.now = now
        self.wall = wall
        self.signals: list[tuple[str, Signal]] = []
        self.warnings: list[tuple[str, str, str]] = []
        self.definitions: list[dict[str, Any]] = []
        self.changed: list[int] = []
        self.unsettled: list[int] = []

    def set_empty_at(self, limit_id: int, empty_at: float | None) -> None:
        """Record when a decaying limit will be empty, on both clocks; None for a limit without decay."""
        on_wall = None if empty_at is None else self.wall + (empty_at - self.now)
        self.ledger.set_empty_at(limit_id, empty_at, on_wall)

    def release(self, limit_id: int, owner_id: int, serial: int) -> bool:
        """Give back what a holder occupies of a limit, without what has drained; False if it holds nothing."""
        if self.ledger.release(limit_id, owner_id, serial, self.now):
            return True
        held = self.ledger.holder(limit_id, owner_id, serial)
        if held is None:
            return False
        slots, drained_at = held
        assert drained_at is not None
        self._drain_sooner(limit_id, slots, drained_at)
        return self.ledger.release(limit_id, owner_id, serial, self.now, drains=True)

    def _drain_sooner(self, limit_id: int, slots: int, drained_at: float) -> None:
        row = self.ledger.limit_with_id(limit_id)
        assert row is not None
        seconds = rules.undrained_seconds(drained_at, self.now, slots, row.decay)
        if seconds > 0:
            self.set_empty_at(limit_id, row.empty_at - seconds)
            self.ledger.drain_sooner(limit_id, drained_at, seconds)
