"""Setting moments of the boot clock anew, by the wall clock, if they can't be true.

That happens without a boot identity, or in a container that was restored elsewhere: the boot clock may have started
anew while the store stayed.
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
    """Return the row of a limit, with its moments set anew if by the boot clock it is occupied beyond its size.

    A limit that an operator lowered may really be; then the wall clock says the same.
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
    """Set the moments of a limit by the wall clock, because they come from the boot clock of another boot."""
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
