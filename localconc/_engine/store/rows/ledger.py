"""The statements by which admission reads or changes limits, holders, waiters inside one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localconc._engine.core.records import LimitRow, WaiterRow, limits_text
from localconc._engine.store.rows import statements
from localconc._engine.store.rows.schema import (
    GRANTED,
    INSTANT,
    OPERATOR,
    PASSED_OVER,
    REFUSED,
    TOTALS_ROW,
    WAITING,
    total_of,
)
from localconc._engine.store.rows.statements import HELD, WAITER_COLUMNS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from localconc._engine.core.records import LimitRef, Requester


class Ledger:
    """The rows of one open store."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._execute = connection.execute

    # ---- limits ----------------------------------------------------------------------------------------------

    def limit_named(self, name: str) -> LimitRow | None:
        return self._limit(statements.LIMIT_BY_NAME, name)

    def limit_with_id(self, limit_id: int) -> LimitRow | None:
        return self._limit(statements.LIMIT_BY_ID, limit_id)

    def limit_with_uuid(self, uuid: bytes) -> LimitRow | None:
        return self._limit(statements.LIMIT_BY_UUID, uuid)

    def _limit(self, statement: str, key: Any) -> LimitRow | None:
        row = self._execute(statement, (key,)).fetchone()
        return None if row is None else LimitRow.read(row)

    def limits_with_ids(self, limit_ids: Iterable[int]) -> list[LimitRow]:
        """Return those of the limits that still exist."""
        return [row for row in map(self.limit_with_id, limit_ids) if row is not None]

    def all_limits(self) -> list[LimitRow]:
        return [LimitRow.read(row) for row in self._execute(statements.ALL_LIMITS).fetchall()]

    def insert_limit(
        self,
        uuid: bytes,
        name: str,
        limit: int,
        *,
        active: bool,
        configured: bool,
        declared: bool,
        decay: float,
        created: float,
    ) -> LimitRow:
        limit_id = self._execute(
            'INSERT INTO limits (uuid, name, "limit", active, configured, declared, slot_decay_per_second, created, '
            "updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (uuid, name, limit, active, configured, declared, decay, created, created),
        ).lastrowid
        assert limit_id is not None
        row = self.limit_with_id(limit_id)
        assert row is not None
        return row

    def update_limit(self, row: LimitRow) -> None:
        """Write a definition; holders, averages and decay stay as they are."""
        self._execute(
            'UPDATE limits SET name = ?, "limit" = ?, active = ?, configured = ?, declared = ?, '
            "slot_decay_per_second = ?, revision = revision + 1, updated = ? WHERE id = ?",
            (row.name, row.limit, row.active, row.configured, row.declared, row.decay, row.updated, row.id),
        )

    def delete_limit(self, limit_id: int) -> None:
        """Delete a definition with its slots. The caller reevaluates its waiters in the same transaction."""
        self._execute("DELETE FROM limits WHERE id = ?", (limit_id,))

    def set_empty_at(self, limit_id: int, empty_at: float | None, empty_at_wall: float | None) -> None:
        """Record when a decaying limit will be empty, by both clocks."""
        self._execute(
            f"UPDATE slots SET drained_at = ?, drained_at_wall = ? WHERE {total_of()}",
            (empty_at, empty_at_wall, limit_id),
        )

    def set_denied(self, limit_id: int, denied: float, at: float) -> None:
        self._execute(f"UPDATE slots SET denied = ?, denied_at = ? WHERE {total_of()}", (denied, at, limit_id))

    def set_pause(self, limit_id: int, until: float | None, until_wall: float | None) -> None:
        """Record until when a limit is paused, by both clocks; None ends the pause."""
        self._execute(
            f"UPDATE slots SET paused_until = ?, paused_until_wall = ? WHERE {total_of()}",
            (until, until_wall, limit_id),
        )

    def record_refusal(self, limit_id: int, refused_wall: float) -> None:
        """Note in the history that a request was refused, or gave up."""
        self._execute("INSERT INTO refusals (limit_id, refused_wall) VALUES (?, ?)", (limit_id, refused_wall))

    # ---- holders ---------------------------------------------------------------------------------------------

    def insert_holder(
        self,
        ref: LimitRef,
        requester: Requester,
        slots: int,
        acquired_wall: float,
        acquired_boot: float,
        drained_at: float | None,
        waited_seconds: float = 0.0,
        ticket: int | None = None,
    ) -> None:
        owner_id, serial, thread, label, context = requester
        self._execute(
            'INSERT INTO slots (limit_id, "limit", owner_id, serial, slots, acquired_wall, acquired_boot, thread, '
            "label, context, drained_at, waited_seconds, ticket) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(ref.limit_id, ref.limit, owner_id, serial, slots, acquired_wall, acquired_boot),
                *(thread, label or None, context, drained_at, waited_seconds, ticket),
            ),
        )

    def insert_unowned(self, limit_id: int, slots: int, acquired_wall: float, acquired_boot: float) -> None:
        """Occupy slots that no process owns."""
        self._execute(
            "INSERT INTO slots (limit_id, owner_id, serial, slots, acquired_wall, acquired_boot) "
            "VALUES (?, ?, 0, ?, ?, ?)",
            (limit_id, OPERATOR, slots, acquired_wall, acquired_boot),
        )

    def record_rate_limited(
        self, ref: LimitRef, requester: Requester, slots: int, acquired_wall: float, waited_seconds: float
    ) -> None:
        """Note slots of rate_limit in the history; no caller will release them."""
        owner_id, serial, thread, label, _ = requester
        self._execute(
            'INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_wall, waited_seconds, thread, '
            f"label, ending) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {INSTANT})",
            (ref.limit_id, ref.limit, owner_id, serial, slots, acquired_wall, waited_seconds, thread, label or None),
        )

    def holder(self, limit_id: int, owner_id: int, serial: int) -> tuple[int, float | None] | None:
        """Return slots and `drained_at` of a holder."""
        row: tuple[int, float | None] | None = self._execute(
            "SELECT slots, drained_at FROM slots WHERE limit_id = ? AND owner_id = ? AND serial = ?",
            (limit_id, owner_id, serial),
        ).fetchone()
        return row

    def release(self, limit_id: int, owner_id: int, serial: int, released_boot: float) -> bool:
        """Release the slots of a holder without decay; return False if there is none."""
        return self._execute(statements.RELEASE, (released_boot, limit_id, owner_id, serial)).rowcount == 1

    def release_draining(self, limit_id: int, owner_id: int, serial: int, released_boot: float) -> bool:
        """Release a holder of any limit; the caller subtracts what has drained."""
        return self._execute(statements.RELEASE_DRAINING, (released_boot, limit_id, owner_id, serial)).rowcount == 1

    def set_ending(self, limit_id: int, owner_id: int, serial: int, ending: int) -> None:
        """Let the history say how a holder ended without a release."""
        self._execute(
            "UPDATE slots SET ending = ? WHERE limit_id = ? AND owner_id = ? AND serial = ?",
            (ending, limit_id, owner_id, serial),
        )

    def set_numbers(self, limit_id: int, owner_id: int, serial: int, numbers: str) -> None:
        """Note the slot numbers of a holder."""
        self._execute(statements.SET_NUMBERS, (numbers, limit_id, owner_id, serial))

    def drain_sooner(self, limit_id: int, drained_after: float, seconds: float) -> None:
        """Let the slots that drain after released ones drain earlier."""
        self._execute(
            f"UPDATE slots SET drained_at = drained_at - ? WHERE limit_id = ? AND {HELD} AND drained_at > ?",
            (seconds, limit_id, drained_after),
        )

    def holders_in_order(self, limit_id: int) -> list[tuple[int, int, int, float | None]]:
        """Return owner, serial, slots and `drained_at` of each holder, operators' slots included, oldest first."""
        return self._execute(
            f"SELECT owner_id, serial, slots, drained_at FROM slots "
            f"WHERE limit_id = ? AND owner_id <> {TOTALS_ROW} ORDER BY acquired_boot, owner_id, serial",
            (limit_id,),
        ).fetchall()

    def resize_holder(self, limit_id: int, owner_id: int, serial: int, slots: int, drained_at: float | None) -> None:
        """Change what a holder occupies, and the total with it."""
        before = self.holder(limit_id, owner_id, serial)
        assert before is not None
        self._execute(
            "UPDATE slots SET slots = ?, drained_at = ? WHERE limit_id = ? AND owner_id = ? AND serial = ?",
            (slots, drained_at, limit_id, owner_id, serial),
        )
        self._execute(f"UPDATE slots SET slots = slots + ? WHERE {total_of()}", (slots - before[0], limit_id))

    def delete_holder(self, limit_id: int, owner_id: int, serial: int) -> None:
        """Take a grant back; the history does not keep it."""
        before = self.holder(limit_id, owner_id, serial)
        if before is not None:
            self._execute(
                "DELETE FROM slots WHERE limit_id = ? AND owner_id = ? AND serial = ?", (limit_id, owner_id, serial)
            )
            self._execute(f"UPDATE slots SET slots = slots - ? WHERE {total_of()}", (before[0], limit_id))

    def delete_unowned(self, limit_id: int) -> None:
        """Free the slots that an operator occupied."""
        self.delete_holder(limit_id, OPERATOR, 0)

    def held_by(self, owner_id: int) -> list[tuple[int, int]]:
        """Return limit and serial of everything that an owner holds. This reads every holder's row."""
        return self._execute("SELECT limit_id, serial FROM slots WHERE owner_id = ?", (owner_id,)).fetchall()

    # ---- waiters ---------------------------------------------------------------------------------------------

    def insert_waiter(self, row: WaiterRow) -> int:
        """Insert a waiter, which a trigger queues on its limits if it is to wait; return its ticket."""
        ticket = self._execute(statements.INSERT_WAITER, row).lastrowid
        assert ticket is not None
        return ticket

    def pass_over(self, waiter: WaiterRow) -> None:
        """Take a stopped waiter out of its queues before it is granted anything; it keeps its ticket."""
        self._execute(
            "UPDATE waiters SET state = ?, limit_ids = ?, secret = 0 WHERE ticket = ?",
            (PASSED_OVER, limits_text(waiter.queued_on), waiter.ticket),
        )

    def requeue(self, ticket: int, limit_ids: list[int]) -> None:
        """Queue a waiter on other limits, at its place in the order of arrival.

        The row loses its secret, so that no wakeup can prove the grant: the process has to read which limits it got.
        """
        self._execute("UPDATE waiters SET limit_ids = ?, secret = 0 WHERE ticket = ?", (limits_text(limit_ids), ticket))

    def admit_first(self, limit_id: int, wall: float, now: float) -> tuple[int, tuple[str, int, int]] | None:
        """Admit the first in the queue of a limit by the fast statement.

        Returns:
            The slots that are left, and address, serial and secret of the waiter; None if the statement does not apply.
        """
        row = self._execute(statements.ADMIT_FAST, (wall, now, limit_id, limit_id, now, limit_id)).fetchone()
        return None if row is None else (row[0] - row[1], row[2:])

    def admit_waiter(self, ticket: int, granted_wall: float, granted_boot: float) -> None:
        """Mark a waiter as granted that is not simple; its process reads this in the row."""
        self._execute(
            "UPDATE waiters SET state = ?, granted_wall = ?, granted_boot = ? WHERE ticket = ?",
            (GRANTED, granted_wall, granted_boot, ticket),
        )

    def refuse_waiter(self, ticket: int, reason: str) -> None:
        self._execute("UPDATE waiters SET state = ?, answer = ? WHERE ticket = ?", (REFUSED, reason, ticket))

    def delete_waiter(self, ticket: int) -> None:
        """Delete a waiter's row; triggers delete its places in the queues."""
        self._execute("DELETE FROM waiters WHERE ticket = ?", (ticket,))

    def waiter(self, ticket: int) -> WaiterRow | None:
        row = self._execute(statements.WAITER, (ticket,)).fetchone()
        return None if row is None else WaiterRow._make(row)

    def has_queue(self, limit_id: int) -> bool:
        """Return whether requests are queued on a limit."""
        return self._execute(statements.HAS_QUEUE, (limit_id,)).fetchone() is not None

    def first_waiter(self, limit_id: int) -> WaiterRow | None:
        """Return the first in the queue of a limit."""
        row = self._execute(statements.FIRST_WAITER, (limit_id,)).fetchone()
        return None if row is None else WaiterRow._make(row)

    def waiters_of(self, owner_id: int) -> list[WaiterRow]:
        rows = self._execute(f"SELECT {WAITER_COLUMNS} FROM waiters WHERE owner_id = ?", (owner_id,)).fetchall()
        return [WaiterRow._make(row) for row in rows]

    def tickets_in_queue(self, limit_id: int) -> list[int]:
        rows = self._execute("SELECT ticket FROM queue WHERE limit_id = ? ORDER BY ticket", (limit_id,)).fetchall()
        return [row[0] for row in rows]

    def tickets_naming(self, name: str) -> list[int]:
        """Return the waiters that name a limit, whether or not they are queued on it; a few others do no harm."""
        statement = (
            f"SELECT ticket FROM waiters WHERE state = {WAITING} "
            "AND instr(replace(request, '>', '/') || '/', '/' || ? || '/') > 0 ORDER BY ticket"
        )
        return [row[0] for row in self._execute(statement, (name,)).fetchall()]

    # ---- meta ------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str:
        row = self._execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return "" if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
