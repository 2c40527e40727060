"""The rows, and all the SQL that reads and changes them. Every method runs inside a transaction of its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from localconc._engine.history import History
from localconc._engine.model import CONCURRENCY, LimitRow, WaiterRow
from localconc._engine.owners import OwnerRow
from localconc._engine.schema import GRANTED, NOBODY, REFUSED, TOTAL, WAITING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.model import Party, Request, Share
    from localconc._engine.owners import Owner

#: More than any ticket: whoever is not in the queue comes after all who are.
MOST_TICKETS = 2**63 - 1

#: Tickets before one's own that are looked at for whose they are.
MOST_LOOKED_AT = 64

# The two statements of the common case, each a transaction of its own: one limit that is enforced, does not decay,
# has room, and nobody waits for. They change a row only if all of that holds; triggers see to it, and keep the sum.

TAKE_AT_ONCE = """
    INSERT INTO slots (limit_id, revision, "limit", owner_id, serial, slots, acquired_at, since, thread)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

GIVE_BACK_AT_ONCE = """
    UPDATE slots SET released = ?
    WHERE limit_id = ? AND owner_id = ? AND serial = ? AND drained_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.limit_id = slots.limit_id)
"""

_LIMIT_COLUMNS = """
    definition.id, definition.uuid, definition.name, definition."limit", definition.active, definition.configured,
    definition.slot_decay_per_second, definition.revision, definition.created, definition.updated,
    total.slots, coalesce(total.drained_at, 0), total.average, total.denied, total.denied_at,
    (SELECT min(ticket) FROM queue WHERE limit_id = definition.id)
"""
_LIMITS = f"""
    limits AS definition JOIN slots AS total
        ON total.limit_id = definition.id AND total.owner_id = {TOTAL} AND total.serial = 0
"""
_LIMIT_BY_NAME = f"SELECT {_LIMIT_COLUMNS} FROM {_LIMITS} WHERE definition.name = ?"
_LIMIT_BY_ID = f"SELECT {_LIMIT_COLUMNS} FROM {_LIMITS} WHERE definition.id = ?"
_LIMIT_BY_UUID = f"SELECT {_LIMIT_COLUMNS} FROM {_LIMITS} WHERE definition.uuid = ?"
_ALL_LIMITS = f"SELECT {_LIMIT_COLUMNS} FROM {_LIMITS} ORDER BY definition.name"

_TOTAL_OF = f"WHERE limit_id = ? AND owner_id = {TOTAL} AND serial = 0"
_HOLDS = f"owner_id > {TOTAL}"

_WAITER_COLUMNS = """
    waiters.ticket, waiters.owner_id, waiters.serial, waiters.state, waiters.slots, waiters.request,
    waiters.limit_ids, waiters.thread, waiters.address, waiters.secret, waiters.waiting_since, waiters.admitted_at,
    waiters.admitted_since, waiters.answer
"""

_WAITER_WITH_TICKET = f"SELECT {_WAITER_COLUMNS} FROM waiters WHERE ticket = ?"

# Looked up once per wake-up, as a transaction of its own; with the newest process, for who watches them all.
LOOK_AT_WAITER = f"SELECT (SELECT coalesce(max(id), 0) FROM owners), {_WAITER_COLUMNS} FROM waiters WHERE ticket = ?"

# The first in the queue of a limit, and whether it is the common case: a plain request, a limit that is enforced and
# does not decay. Then this look and `_ADMIT_PLAINLY` are all of a hand-over: somebody is asleep until it is done.
_NEXT_IN_LINE = f"""
    SELECT waiters.ticket, waiters.slots, waiters.address, waiters.secret,
        waiters.is_plain AND typeof(waiters.slots) = 'integer' AND total.revision IS NOT NULL,
        total."limit", total.slots
    FROM waiters CROSS JOIN slots AS total
    WHERE waiters.ticket = (SELECT min(ticket) FROM queue WHERE limit_id = ?)
        AND total.limit_id = ? AND total.owner_id = {TOTAL} AND total.serial = 0
"""
_ADMIT_PLAINLY = f"UPDATE waiters SET state = {GRANTED}, admitted_at = ?, admitted_since = ? WHERE ticket = ?"

# The same of any request and any limit, with all there is to know of both.
_FIRST_WAITER = f"""
    SELECT {_WAITER_COLUMNS}, {_LIMIT_COLUMNS}
    FROM queue JOIN waiters USING (ticket) CROSS JOIN {_LIMITS}
    WHERE definition.id = queue.limit_id AND queue.limit_id = ? ORDER BY queue.ticket LIMIT 1
"""
_WAITER_WIDTH = len(WaiterRow._fields)

_RELEASE_DRAINING = """
    UPDATE slots SET released = ? WHERE limit_id = ? AND owner_id = ? AND serial = ?
"""
_RELEASE = f"{_RELEASE_DRAINING} AND drained_at IS NULL"


class NextInLine(NamedTuple):
    """Who is first in the queue of a limit; `is_plain` if it takes no more than room to admit it."""

    ticket: int
    slots: int
    address: str
    secret: int
    is_plain: int
    limit: int
    held: int


class Ledger(History):
    """The rows of one open store."""

    # ---- limits ----------------------------------------------------------------------------------------------

    def limit_named(self, name: str) -> LimitRow | None:
        return self._limit(_LIMIT_BY_NAME, name)

    def limit_with_id(self, limit_id: int) -> LimitRow | None:
        return self._limit(_LIMIT_BY_ID, limit_id)

    def limits_with_ids(self, limit_ids: Iterable[int]) -> list[LimitRow]:
        """Those of them that are there still."""
        return [row for row in map(self.limit_with_id, limit_ids) if row is not None]

    def limit_with_uuid(self, uuid: bytes) -> LimitRow | None:
        return self._limit(_LIMIT_BY_UUID, uuid)

    def _limit(self, statement: str, key: Any) -> LimitRow | None:
        row = self._execute(statement, (key,)).fetchone()
        return None if row is None else LimitRow._make(row)

    def all_limits(self) -> list[LimitRow]:
        return [LimitRow._make(row) for row in self._execute(_ALL_LIMITS)]

    def insert_limit(
        self, uuid: bytes, name: str, limit: int, active: bool, configured: bool, decay: float, created: float
    ) -> LimitRow:
        limit_id = self._execute(
            'INSERT INTO limits (uuid, name, "limit", active, configured, slot_decay_per_second, created, updated) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (uuid, name, limit, active, configured, decay, created, created),
        ).lastrowid
        assert limit_id is not None
        row = self.limit_with_id(limit_id)
        assert row is not None
        return row

    def update_limit(self, row: LimitRow) -> None:
        """Write a definition; the state stays."""
        self._execute(
            'UPDATE limits SET name = ?, "limit" = ?, active = ?, configured = ?, slot_decay_per_second = ?, '
            "revision = revision + 1, updated = ? WHERE id = ?",
            (row.name, row.limit, row.active, row.configured, row.decay, row.updated, row.id),
        )

    def delete_limit(self, limit_id: int) -> None:
        """Delete a definition; the triggers take its slots and its places in the queue along."""
        self._execute("DELETE FROM limits WHERE id = ?", (limit_id,))

    def definitions(self) -> int:
        """How many configured limits there are."""
        return int(self._execute("SELECT count(*) FROM limits WHERE configured").fetchone()[0])

    def set_empty_at(self, limit_id: int, empty_at: float | None, empty_at_wall: float | None) -> None:
        """Record when a decaying limit will be empty, on both clocks."""
        self._execute(
            f"UPDATE slots SET drained_at = ?, drained_at_wall = ? {_TOTAL_OF}",
            (empty_at, empty_at_wall, limit_id),
        )

    def set_denied(self, limit_id: int, denied: float, at: float) -> None:
        self._execute(f"UPDATE slots SET denied = ?, denied_at = ? {_TOTAL_OF}", (denied, at, limit_id))

    # ---- holders ---------------------------------------------------------------------------------------------

    def insert_holder(
        self, share: Share, party: Party, slots: int, acquired_at: float, since: float, drained_at: float | None
    ) -> None:
        self._execute(
            'INSERT INTO slots (limit_id, "limit", owner_id, serial, slots, acquired_at, since, thread, drained_at) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                share.limit_id,
                share.limit,
                party.owner_id,
                party.serial,
                slots,
                acquired_at,
                since,
                party.thread,
                drained_at,
            ),
        )

    def insert_unowned(self, limit_id: int, slots: int, acquired_at: float, since: float) -> None:
        """Occupy slots that no process owns."""
        self._execute(
            "INSERT INTO slots (limit_id, owner_id, serial, slots, acquired_at, since) VALUES (?, ?, 0, ?, ?, ?)",
            (limit_id, NOBODY, slots, acquired_at, since),
        )

    def holder(self, limit_id: int, owner_id: int, serial: int) -> tuple[int, float | None] | None:
        """Slots and `drained_at` of one who holds."""
        row: tuple[int, float | None] | None = self._execute(
            "SELECT slots, drained_at FROM slots WHERE limit_id = ? AND owner_id = ? AND serial = ?",
            (limit_id, owner_id, serial),
        ).fetchone()
        return row

    def release(self, limit_id: int, owner_id: int, serial: int, released: float, *, drains: bool = False) -> bool:
        """Give a holder's slots back, if it holds any; a trigger takes them from the sum and moves the average."""
        changed = self._execute(_RELEASE_DRAINING if drains else _RELEASE, (released, limit_id, owner_id, serial))
        return changed.rowcount == 1

    def drain_sooner(self, limit_id: int, drained_after: float, seconds: float) -> None:
        """Move up those whose slots drain after the ones given back."""
        self._execute(
            f"UPDATE slots SET drained_at = drained_at - ? WHERE limit_id = ? AND {_HOLDS} AND drained_at > ?",
            (seconds, limit_id, drained_after),
        )

    def holders_in_order(self, limit_id: int) -> list[tuple[int, int, int, float | None]]:
        """Owner, serial, slots and `drained_at` of each who holds, operators' slots included, oldest first."""
        return self._execute(
            f"SELECT owner_id, serial, slots, drained_at FROM slots "
            f"WHERE limit_id = ? AND owner_id <> {TOTAL} ORDER BY since, owner_id, serial",
            (limit_id,),
        ).fetchall()

    def resize_holder(self, limit_id: int, owner_id: int, serial: int, slots: int, drained_at: float | None) -> None:
        """Change what a holder occupies; the sum follows."""
        before = self.holder(limit_id, owner_id, serial)
        assert before is not None
        key = (limit_id, owner_id, serial)
        self._execute(
            "UPDATE slots SET slots = ?, drained_at = ? WHERE limit_id = ? AND owner_id = ? AND serial = ?",
            (slots, drained_at, *key),
        )
        self._execute(f"UPDATE slots SET slots = slots + ? {_TOTAL_OF}", (slots - before[0], limit_id))

    def delete_unowned(self, limit_id: int) -> None:
        self._execute("DELETE FROM slots WHERE limit_id = ? AND owner_id = ?", (limit_id, NOBODY))

    def limits_held_by(self, owner_id: int) -> list[tuple[int, int]]:
        """Limit and serial of everything an owner holds."""
        return self._execute("SELECT limit_id, serial FROM slots WHERE owner_id = ?", (owner_id,)).fetchall()

    def holding(self, limit_id: int | None = None) -> list[tuple[Any, ...]]:
        """Limit's name, slots, pid, thread, command and time of each who holds."""
        statement = f"""
            SELECT definition.name, slots.slots, owners.pid, slots.thread, owners.command, slots.acquired_at
            FROM slots JOIN limits AS definition ON definition.id = slots.limit_id
                LEFT JOIN owners ON owners.id = slots.owner_id
            WHERE {_HOLDS} {"" if limit_id is None else "AND slots.limit_id = ?"}
            ORDER BY slots.since, slots.owner_id, slots.serial
        """
        return self._execute(statement, () if limit_id is None else (limit_id,)).fetchall()

    def owners_holding(self, limit_ids: Iterable[int]) -> list[OwnerRow]:
        """The processes that hold slots of these limits, or wait for them."""
        ids = str(list(limit_ids))  # as JSON has it
        rows = self._execute(
            f"""
            SELECT * FROM owners WHERE id IN (
                SELECT owner_id FROM slots
                WHERE limit_id IN (SELECT value FROM json_each(?)) AND {_HOLDS}
                UNION
                SELECT owner_id FROM waiters JOIN queue USING (ticket)
                WHERE limit_id IN (SELECT value FROM json_each(?))
            )
            """,
            (ids, ids),
        )
        return [OwnerRow._make(row) for row in rows]

    # ---- waiters and their queue -----------------------------------------------------------------------------

    def insert_waiter(
        self, party: Party, request: Request, limit_ids: list[int], address: str, secret: int, since: float
    ) -> int:
        """Put a request at the end of the queue of each limit; returns its ticket."""
        ticket = self._execute(
            "INSERT INTO waiters (owner_id, serial, state, slots, request, limit_ids, thread, address, secret, "
            "waiting_since, is_plain) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                party.owner_id,
                party.serial,
                WAITING,
                request.slots,
                request.to_text(),
                " ".join(map(str, limit_ids)),
                party.thread,
                address,
                secret,
                since,
                len(limit_ids) == 1 and request.mode == CONCURRENCY,
            ),
        ).lastrowid
        assert ticket is not None
        self._join_queues(ticket, limit_ids[1:])  # the first one by a trigger
        return ticket

    def _join_queues(self, ticket: int, limit_ids: list[int]) -> None:
        for limit_id in limit_ids:
            self._execute("INSERT INTO queue VALUES (?, ?)", (limit_id, ticket))

    def leave_queues(self, waiter: WaiterRow) -> list[int]:
        """Take a waiter out of all its queues; returns their limits."""
        limit_ids = waiter.queued_on
        for limit_id in limit_ids:
            self._execute("DELETE FROM queue WHERE limit_id = ? AND ticket = ?", (limit_id, waiter.ticket))
        return limit_ids

    def requeue(self, waiter: WaiterRow, limit_ids: list[int]) -> None:
        """Keep a waiter's place in line after its limits changed; its answer will have to say which they are."""
        self.leave_queues(waiter)
        self._join_queues(waiter.ticket, limit_ids)
        self._execute(
            "UPDATE waiters SET limit_ids = ?, answer = '', is_plain = 0 WHERE ticket = ?",
            (" ".join(map(str, limit_ids)), waiter.ticket),
        )

    def next_in_line(self, limit_id: int) -> NextInLine | None:
        row = self._execute(_NEXT_IN_LINE, (limit_id, limit_id)).fetchone()
        return None if row is None else NextInLine._make(row)

    def admit_plainly(self, ticket: int, admitted_at: float, admitted_since: float) -> None:
        """Admit a plain waiter; triggers occupy its slots and take it out of the queue."""
        self._execute(_ADMIT_PLAINLY, (admitted_at, admitted_since, ticket))

    def admit_waiter(self, ticket: int, admitted_at: float, admitted_since: float, answer: str | None) -> None:
        """Admit a waiter whose slots have been occupied."""
        self._execute(
            "UPDATE waiters SET state = ?, admitted_at = ?, admitted_since = ?, answer = ?, is_plain = 0 "
            "WHERE ticket = ?",
            (GRANTED, admitted_at, admitted_since, answer, ticket),
        )

    def refuse_waiter(self, ticket: int, reason: str) -> None:
        self._execute("UPDATE waiters SET state = ?, answer = ? WHERE ticket = ?", (REFUSED, reason, ticket))

    def delete_waiters(self, tickets: Iterable[int], owner_id: int) -> None:
        for ticket in tickets:
            self._execute("DELETE FROM waiters WHERE ticket = ? AND owner_id = ?", (ticket, owner_id))

    def waiter(self, ticket: int) -> WaiterRow | None:
        row = self._execute(_WAITER_WITH_TICKET, (ticket,)).fetchone()
        return None if row is None else WaiterRow._make(row)

    def first_waiter(self, limit_id: int) -> tuple[WaiterRow, LimitRow] | None:
        """Who is first in the queue of a limit, and the limit."""
        row = self._execute(_FIRST_WAITER, (limit_id,)).fetchone()
        return None if row is None else (WaiterRow._make(row[:_WAITER_WIDTH]), LimitRow._make(row[_WAITER_WIDTH:]))

    def waiters_of(self, owner_id: int) -> list[WaiterRow]:
        rows = self._execute(f"SELECT {_WAITER_COLUMNS} FROM waiters WHERE owner_id = ?", (owner_id,))
        return [WaiterRow._make(row) for row in rows]

    def answered_tickets(self, owner_id: int) -> list[int]:
        """Those of an owner's requests that need not wait any longer."""
        rows = self._execute("SELECT ticket FROM waiters WHERE owner_id = ? AND state <> 0", (owner_id,))
        return [row[0] for row in rows]

    def tickets_in_queue(self, limit_id: int) -> list[int]:
        rows = self._execute("SELECT ticket FROM queue WHERE limit_id = ? ORDER BY ticket", (limit_id,))
        return [row[0] for row in rows]

    def tickets_naming(self, name: str) -> list[int]:
        """Those who wait and name a limit, whether or not they wait for it; a few too many do no harm."""
        statement = (
            f"SELECT ticket FROM waiters WHERE state = {WAITING} "
            "AND instr(request || '/', '/' || ? || '/') > 0 ORDER BY ticket"
        )
        return [row[0] for row in self._execute(statement, (name,))]

    def requests_ahead(self, limit_id: int, ticket: int | None) -> int:
        """How many wait on a limit before a ticket, or altogether."""
        statement = "SELECT count(*) FROM queue WHERE limit_id = ? AND ticket < ?"
        return int(self._execute(statement, (limit_id, ticket or MOST_TICKETS)).fetchone()[0])

    def owners_ahead(self, limit_id: int, ticket: int) -> int:
        """How many processes wait on a limit before a ticket; those of the nearest tickets, if there are many."""
        statement = f"""
            SELECT count(DISTINCT owner_id) FROM (
                SELECT waiters.owner_id FROM queue JOIN waiters USING (ticket)
                WHERE queue.limit_id = ? AND queue.ticket < ? ORDER BY queue.ticket DESC LIMIT {MOST_LOOKED_AT}
            )
        """
        return int(self._execute(statement, (limit_id, ticket)).fetchone()[0])

    def waiting(self, limit_id: int | None = None) -> list[tuple[Any, ...]]:
        """Request, slots, pid, thread, command and time of each who waits, in order of arrival."""
        statement = f"""
            SELECT waiters.request, waiters.slots, owners.pid, waiters.thread, owners.command, waiters.waiting_since
            FROM waiters LEFT JOIN owners ON owners.id = waiters.owner_id
            WHERE waiters.state = {WAITING}
                {"" if limit_id is None else "AND ticket IN (SELECT ticket FROM queue WHERE limit_id = ?)"}
            ORDER BY ticket
        """
        return self._execute(statement, () if limit_id is None else (limit_id,)).fetchall()

    def queue_lengths(self) -> dict[int, int]:
        return dict(self._execute("SELECT limit_id, count(*) FROM queue GROUP BY limit_id").fetchall())

    # ---- owners ----------------------------------------------------------------------------------------------

    def insert_owner(self, owner: Owner) -> int:
        owner_id = self._execute(
            "INSERT INTO owners (key, pid, pid_namespace, started, command) VALUES (?, ?, ?, ?, ?)",
            (owner.key, owner.pid, owner.pid_namespace, owner.started, owner.command),
        ).lastrowid
        assert owner_id is not None
        return owner_id

    def owner_with_key(self, key: str) -> int | None:
        row = self._execute("SELECT id FROM owners WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def owners_after(self, owner_id: int) -> list[OwnerRow]:
        return [OwnerRow._make(row) for row in self._execute("SELECT * FROM owners WHERE id > ?", (owner_id,))]

    def owner(self, owner_id: int) -> OwnerRow | None:
        row = self._execute("SELECT * FROM owners WHERE id = ?", (owner_id,)).fetchone()
        return None if row is None else OwnerRow._make(row)

    def become_command(self, owner_id: int, pid: int, started: str, command: str) -> None:
        """Let an owner be the command that it started."""
        self._execute(
            "UPDATE owners SET pid = ?, started = ?, command = ?, is_command = 1 WHERE id = ?",
            (pid, started, command, owner_id),
        )

    def delete_owner(self, owner_id: int) -> None:
        self._execute("DELETE FROM owners WHERE id = ?", (owner_id,))

    # ---- the store as a whole ----------------------------------------------------------------------------------

    def meta(self, key: str) -> str:
        row = self._execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return "" if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def latest_moment(self) -> float:
        """The latest reading of the clock since boot that any decaying limit was written with."""
        row = self._execute("SELECT max(since) FROM slots").fetchone()
        return float(row[0] or 0.0)

    def forget_everybody(self) -> None:
        """After a reboot nobody of before lives: close what they held, and drop their places in the queue."""
        self.record_unfinished()
        for statement in (
            f"DELETE FROM slots WHERE owner_id > {TOTAL}",
            "DELETE FROM waiters",
            "DELETE FROM queue",
            "DELETE FROM owners",
            f"UPDATE slots SET denied = 0, denied_at = 0 WHERE owner_id = {TOTAL}",
        ):
            self._execute(statement)

    def decaying_on_wall(self) -> list[tuple[int, float]]:
        """Limits that still drain, and when they will be empty by the wall clock."""
        return self._execute(
            f"SELECT limit_id, drained_at_wall FROM slots WHERE owner_id = {TOTAL} AND drained_at_wall IS NOT NULL"
        ).fetchall()

    def sums_that_differ(self) -> list[tuple[str, int, int]]:
        """Name, recorded sum and real sum of every limit whose sum does not equal its holders' slots."""
        return self._execute(
            f"""
            SELECT definition.name, total.slots, coalesce(sum(slots.slots), 0) AS held
            FROM {_LIMITS} LEFT JOIN slots
                ON slots.limit_id = definition.id AND slots.owner_id <> {TOTAL} AND slots.released IS NULL
            GROUP BY definition.id HAVING total.slots <> held
            """
        ).fetchall()
