"""Moments of the boot clock that can't be true, set anew by the wall clock.

Without a boot identity, or in a container that was restored elsewhere, the boot clock may have started anew under a
store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from localconc._engine.core import rules

if TYPE_CHECKING:
    from localconc._engine.core.records import LimitRow
    from localconc._engine.store.store import Transaction

#: The two clocks drift apart by less than this while a limit drains.
TOLERANCE_SECONDS: Final = 1.0


def with_possible_moments(txn: Transaction, row: LimitRow) -> LimitRow:
    """Return the row of a limit, with its moments set anew if the boot clock says more than the limit can hold.

    A limit that was lowered may be occupied beyond its size, too; then the wall clock says the same.
    """
    if row.decay == 0 or row.empty_at_wall is None:
        return row
    seconds = row.empty_at - txn.now
    if seconds <= max(row.limit, 1) / row.decay + TOLERANCE_SECONDS:
        return row
    if seconds <= row.empty_at_wall - txn.wall + TOLERANCE_SECONDS:
        return row
    return restart(txn, row)


def restart(txn: Transaction, row: LimitRow) -> LimitRow:
    """Set the moments of a limit by the wall clock, since today's boot clock is not the one that they come from."""
    if row.decay > 0 and row.empty_at_wall is not None:
        most = max(row.limit, 1)
        txn.set_empty_at(row.id, rules.empty_at_after_reboot(row.empty_at_wall, txn.wall, txn.now, most, row.decay))
    if row.paused_until_wall is not None:
        left = min(row.paused_until_wall - txn.wall, rules.MAX_PAUSE_SECONDS)
        if left > 0:
            txn.ledger.set_pause(row.id, txn.now + left, row.paused_until_wall)
        else:
            txn.ledger.set_pause(row.id, None, None)
    if row.denied_at > txn.now:
        txn.ledger.set_denied(row.id, 0.0, txn.now)
    anew = txn.ledger.limit_with_id(row.id)
    assert anew is not None
    return anew
