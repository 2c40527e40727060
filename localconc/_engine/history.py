"""What was held, when: the part of the ledger that looks back. It is bounded, and written by a trigger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine.model import Acquisition, Share
from localconc._engine.schema import TOTAL

if TYPE_CHECKING:
    import sqlite3

    from localconc._engine.model import Party

_ACQUISITIONS = f"""
    SELECT definition.uuid, definition.name, history."limit", owner_id, serial, slots, acquired_at, released_at
    FROM history JOIN (SELECT id, uuid, name FROM limits UNION ALL SELECT id, uuid, name FROM past_limits) AS definition
        ON definition.id = history.limit_id
    UNION ALL
    SELECT definition.uuid, definition.name, slots."limit", owner_id, serial, slots, acquired_at, NULL
    FROM slots JOIN limits AS definition ON definition.id = slots.limit_id
    WHERE owner_id > {TOTAL}
"""


class History:
    """The past acquisitions of one open store."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def acquisitions(self) -> list[Acquisition]:
        """All that the history knows, and what is held now."""
        return [Acquisition._make(row) for row in self._execute(_ACQUISITIONS)]

    def record(self, share: Share, party: Party, slots: int, acquired_at: float) -> None:
        """Note slots that nobody will give back (those of rate_limit)."""
        self._execute(
            'INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_at) VALUES (?, ?, ?, ?, ?, ?)',
            (share.limit_id, share.limit, party.owner_id, party.serial, slots, acquired_at),
        )

    def record_unfinished(self) -> None:
        """Note all that is held as taken, with an end that nobody saw."""
        self._execute(
            f"""
            INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_at)
            SELECT limit_id, "limit", owner_id, serial, slots, acquired_at FROM slots
            WHERE owner_id > {TOTAL} ORDER BY acquired_at
            """
        )

    def forget_past_limits(self) -> None:
        """Forget the names of deleted limits that the history does not mention any more."""
        self._execute("DELETE FROM past_limits WHERE id NOT IN (SELECT limit_id FROM history)")
