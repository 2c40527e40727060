"""Queries over many rows: holders, waiters, requests ahead of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core import display
from localconc._engine.core.calls import Request
from localconc._engine.store.rows.schema import GRANTED, OPERATOR, PASSED_OVER, REFUSED, TOTALS_ROW, UNSEEN, WAITING
from localconc._engine.store.rows.statements import HELD

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable

    from localconc._engine.core.views import Holder, Waiter

#: How many of the requests ahead in a queue, or of the holders, one query looks at.
MAX_LOOKED_AT: Final = 64


class HolderEntry(NamedTuple):
    """One holder of one limit."""

    limit_id: int
    name: str
    owner_id: int
    serial: int
    slots: int
    numbers: str | None
    pid: int
    thread: str
    context: int
    command: str
    label: str
    acquired_wall: float

    def shown_since(self) -> str:
        """Return since when it holds, as messages show it."""
        return display.moment_text(self.acquired_wall)

    def shown(self) -> Holder:
        """Return the holder as people see it."""
        from localconc._engine.core import views  # for those who look

        numbers, acquired_at = display.numbers(self.numbers), display.moment(self.acquired_wall)
        return views.Holder(
            self.name, self.slots, self.pid, self.thread, self.command, acquired_at, numbers, self.label
        )


class Share(NamedTuple):
    """What one process holds of a limit, summed up.

    If the shares of a limit are the same as before, so are its holders: no process gives a serial twice, and the other
    columns show what else can change of a holder.
    """

    owner_id: int
    pid: int | None
    command: str | None
    slots: int
    serials: str
    contexts: float
    numbers: str | None


class WaiterEntry(NamedTuple):
    """One queued request."""

    ticket: int
    owner_id: int
    slots: int
    request: str
    pid: int
    thread: str
    context: int
    command: str
    waiting_since: float

    def shown(self, position: int) -> Waiter:
        """Return the waiter as people see it, at its place in the order of service."""
        from localconc._engine.core import views

        request = Request.from_text(self.request)
        since = display.moment(self.waiting_since)
        return views.Waiter(
            request.names, self.slots, self.pid, self.thread, self.command, position, since, request.label
        )


class QueuedHolder(NamedTuple):
    """A holder that was admitted from the queue, with all that it takes to queue its request again."""

    limit_id: int
    slots: int
    acquired_wall: float
    acquired_boot: float
    waited_seconds: float
    ticket: int
    thread: str | None
    label: str | None
    context: int | None


_HOLDERS: Final = f"""
    SELECT slots.limit_id, definition.name, slots.owner_id, slots.serial, slots.slots, slots.numbers,
        coalesce(owners.pid, 0), coalesce(slots.thread, ''), coalesce(slots.context, 0), coalesce(owners.command, ''),
        coalesce(slots.label, ''), slots.acquired_wall
    FROM {{}} JOIN limits AS definition ON definition.id = slots.limit_id
        LEFT JOIN owners ON owners.id = slots.owner_id
    WHERE {HELD} {{}}
    ORDER BY slots.acquired_boot, slots.owner_id, slots.serial
"""
_ALL_HOLDERS: Final = _HOLDERS.format("slots", "")
_HOLDERS_OF: Final = _HOLDERS.format("slots", "AND slots.limit_id = ?")
_FIRST_HOLDERS_OF: Final = _HOLDERS.format(
    f"""
    (
        SELECT limit_id, owner_id, serial FROM slots WHERE limit_id = ? AND {HELD}
        ORDER BY acquired_boot, owner_id, serial LIMIT ?
    ) JOIN slots USING (limit_id, owner_id, serial)
    """,
    "",
)

_SHARES: Final = f"""
    SELECT share.owner_id, owners.pid, owners.command, share.slots, share.serials, share.contexts, share.numbers
    FROM (
        SELECT owner_id, sum(slots) AS slots, group_concat(serial) AS serials, total(context) AS contexts,
            group_concat(numbers, ';') AS numbers
        FROM slots WHERE limit_id = ? AND {HELD} GROUP BY owner_id
    ) AS share LEFT JOIN owners ON owners.id = share.owner_id
    ORDER BY share.owner_id
"""

_WAITERS: Final = """
    SELECT {} waiters.ticket, waiters.owner_id, waiters.slots, waiters.request, coalesce(owners.pid, 0), waiters.thread,
        waiters.context, coalesce(owners.command, ''), waiters.waiting_since
    FROM {} LEFT JOIN owners ON owners.id = waiters.owner_id
"""
_ALL_WAITERS: Final = (
    _WAITERS.format("", "waiters") + f" WHERE waiters.state NOT IN ({GRANTED}, {REFUSED}) ORDER BY ticket"
)
#: The places in the queues, with those to which passed-over requests will return.
_PLACES: Final = f"""
    (
        SELECT limit_id, ticket FROM queue
        UNION ALL
        SELECT kept.value, waiters.ticket FROM waiters JOIN json_each(waiters.limit_ids) AS kept
        WHERE waiters.state = {PASSED_OVER}
    ) AS place JOIN waiters ON waiters.ticket = place.ticket AND waiters.state IN ({WAITING}, {PASSED_OVER})
"""
_WAITERS_ON: Final = _WAITERS.format("", _PLACES) + " WHERE place.limit_id = ? ORDER BY place.ticket"
_WAITERS_BY_LIMIT: Final = _WAITERS.format("place.limit_id,", _PLACES) + " ORDER BY place.ticket"


def holders(connection: sqlite3.Connection, limit_id: int | None = None) -> list[HolderEntry]:
    """Return the holders of one limit or of all, oldest first."""
    rows = (
        connection.execute(_ALL_HOLDERS).fetchall()
        if limit_id is None
        else connection.execute(_HOLDERS_OF, (limit_id,)).fetchall()
    )
    return [HolderEntry._make(row) for row in rows]


def first_holders(connection: sqlite3.Connection, limit_id: int, count: int) -> list[HolderEntry]:
    """Return the oldest holders of a limit, up to a count."""
    return [HolderEntry._make(row) for row in connection.execute(_FIRST_HOLDERS_OF, (limit_id, count)).fetchall()]


def shares(connection: sqlite3.Connection, limit_id: int) -> list[Share]:
    """Return what each process holds of a limit."""
    return [Share._make(row) for row in connection.execute(_SHARES, (limit_id,)).fetchall()]


def waiters(connection: sqlite3.Connection, limit_id: int | None = None) -> list[WaiterEntry]:
    """Return the queued requests, of one limit or of all, in the order of arrival."""
    rows = (
        connection.execute(_ALL_WAITERS).fetchall()
        if limit_id is None
        else connection.execute(_WAITERS_ON, (limit_id,)).fetchall()
    )
    return [WaiterEntry._make(row) for row in rows]


def waiters_by_limit(connection: sqlite3.Connection) -> dict[int, list[WaiterEntry]]:
    """Return the queue of each limit that has one."""
    queues: dict[int, list[WaiterEntry]] = {}
    for limit_id, *row in connection.execute(_WAITERS_BY_LIMIT).fetchall():
        queues.setdefault(limit_id, []).append(WaiterEntry._make(row))
    return queues


def requests_ahead(connection: sqlite3.Connection, limit_id: int, ticket: int | None) -> int:
    """Return how many requests are queued on a limit ahead of a ticket, or in all for None."""
    if ticket is None:
        row = connection.execute("SELECT count(*) FROM queue WHERE limit_id = ?", (limit_id,)).fetchone()
    else:
        row = connection.execute(
            "SELECT count(*) FROM queue WHERE limit_id = ? AND ticket < ?", (limit_id, ticket)
        ).fetchone()
    return int(row[0])


def queued_holders(
    connection: sqlite3.Connection, owner_id: int, serial: int, limit_ids: Collection[int]
) -> list[QueuedHolder]:
    """Return what an acquisition holds of these limits, if it was admitted from the queue."""
    columns = ", ".join(QueuedHolder._fields).replace("waited_seconds", "coalesce(waited_seconds, 0)")
    statement = f"SELECT {columns} FROM slots WHERE limit_id = ? AND owner_id = ? AND serial = ? AND ticket IS NOT NULL"
    rows = (connection.execute(statement, (limit_id, owner_id, serial)).fetchone() for limit_id in limit_ids)
    return [QueuedHolder._make(row) for row in rows if row is not None]


def has_held(connection: sqlite3.Connection, owner_id: int, serial: int) -> bool:
    """Return whether the history knows an acquisition, because it was released."""
    statement = "SELECT 1 FROM history WHERE owner_id = ? AND serial = ? LIMIT 1"
    return connection.execute(statement, (owner_id, serial)).fetchone() is not None


def has_queued_holders(connection: sqlite3.Connection, limit_ids: Iterable[int]) -> bool:
    """Return whether holders of any of these limits were admitted from the queue."""
    statement = f"SELECT 1 FROM slots WHERE limit_id = ? AND {HELD} AND ticket IS NOT NULL LIMIT 1"
    return any(connection.execute(statement, (each,)).fetchone() for each in limit_ids)


def queued_holders_before(connection: sqlite3.Connection, limit_id: int, before: float) -> list[tuple[int, int]]:
    """Return owner and serial of holders that were admitted from the queue before a moment."""
    return connection.execute(
        f"SELECT owner_id, serial FROM slots WHERE limit_id = ? AND {HELD} AND ticket IS NOT NULL "
        f"AND acquired_boot <= ? ORDER BY random() LIMIT {MAX_LOOKED_AT}",  # if there are more, others each time
        (limit_id, before),
    ).fetchall()


def queued_holders_after(connection: sqlite3.Connection, limit_id: int, since: float) -> list[tuple[int, float]]:
    """Return owner and moment of grant of holders that were admitted from the queue after a moment."""
    return connection.execute(
        f"SELECT owner_id, acquired_boot FROM slots WHERE limit_id = ? AND {HELD} AND ticket IS NOT NULL "
        f"AND acquired_boot > ? LIMIT {MAX_LOOKED_AT}",
        (limit_id, since),
    ).fetchall()


def numbers_on(
    connection: sqlite3.Connection, limit_id: int, owner_id: int, serial: int
) -> tuple[str | None, list[str], bool]:
    """Return the slot numbers of one holder and of all others, and whether its slots drain while it holds them.

    Its own are '' while it has none, and None if it holds nothing.
    """
    own, others, drains = None, [], False
    for owner, number, numbers, drained_at in connection.execute(
        f"SELECT owner_id, serial, numbers, drained_at FROM slots "
        f"WHERE limit_id = ? AND {HELD} AND (numbers IS NOT NULL OR (owner_id = ? AND serial = ?))",
        (limit_id, owner_id, serial),
    ).fetchall():
        if owner == owner_id and number == serial:
            own, drains = numbers or "", drained_at is not None
        else:
            others.append(numbers)
    return own, others, drains


def queues_of(connection: sqlite3.Connection, owner_id: int) -> list[int]:
    """Return the limits that requests of one process are queued on."""
    rows = connection.execute(
        "SELECT DISTINCT queue.limit_id FROM waiters JOIN queue USING (ticket) WHERE waiters.owner_id = ?", (owner_id,)
    ).fetchall()
    return [row[0] for row in rows]


def first_ticket_of(connection: sqlite3.Connection, limit_id: int, owner_id: int) -> int | None:
    """Return the first ticket of a process in the queue of a limit; None if it has none there."""
    statement = "SELECT min(ticket) FROM queue JOIN waiters USING (ticket) WHERE queue.limit_id = ? AND owner_id = ?"
    row = connection.execute(statement, (limit_id, owner_id)).fetchone()
    return None if row[0] is None else int(row[0])


def waiting_serials(connection: sqlite3.Connection, owner_id: int) -> list[int]:
    """Return the serials of a process's requests that are in the queue."""
    rows = connection.execute(
        f"SELECT serial FROM waiters WHERE owner_id = ? AND state = {WAITING}", (owner_id,)
    ).fetchall()
    return [row[0] for row in rows]


def waiting_addresses(connection: sqlite3.Connection, owner_id: int) -> set[str]:
    """Return the addresses of a process's requests that are in the queue."""
    rows = connection.execute(
        f"SELECT address FROM waiters WHERE owner_id = ? AND state = {WAITING}", (owner_id,)
    ).fetchall()
    return {row[0] for row in rows}


# ---- the store as a whole ----------------------------------------------------------------------------------------


def configured_limits(connection: sqlite3.Connection) -> int:
    """Return how many limits are configured."""
    return int(connection.execute("SELECT count(*) FROM limits WHERE configured").fetchone()[0])


def latest_moment(connection: sqlite3.Connection) -> float:
    """Return the latest moment, by the boot clock, at which something in the store happened."""
    row = connection.execute(
        f"""
        SELECT max(
            coalesce((SELECT max(acquired_boot) FROM slots), 0), coalesce((SELECT max(enqueued_boot) FROM waiters), 0),
            coalesce((SELECT max(denied_at) FROM slots WHERE owner_id = {TOTALS_ROW}), 0)
        )
        """
    ).fetchone()
    return float(row[0])


def decaying_totals(connection: sqlite3.Connection) -> list[tuple[int, float, float]]:
    """Return limit and `empty_at`, by the boot clock and by the wall clock, of each limit that drains."""
    return connection.execute(
        f"SELECT limit_id, drained_at, drained_at_wall FROM slots "
        f"WHERE owner_id = {TOTALS_ROW} AND drained_at IS NOT NULL AND drained_at_wall IS NOT NULL"
    ).fetchall()


def forget_all_owners(connection: sqlite3.Connection) -> None:
    """Move all holders to the history, as ended while no process watched, and delete all requests and owners."""
    connection.execute(
        f"""
        INSERT INTO history (limit_id, "limit", owner_id, serial, slots, acquired_wall, waited_seconds, thread, label,
            numbers, ending)
        SELECT limit_id, "limit", owner_id, serial, slots, acquired_wall, coalesce(waited_seconds, 0), thread, label,
            numbers, {UNSEEN}
        FROM slots WHERE {HELD} ORDER BY acquired_wall
        """
    )
    connection.execute(f"DELETE FROM slots WHERE {HELD}")
    connection.execute(
        f"UPDATE slots SET slots = coalesce((SELECT sum(kept.slots) FROM slots AS kept "
        f"WHERE kept.limit_id = slots.limit_id AND kept.owner_id = {OPERATOR}), 0) WHERE owner_id = {TOTALS_ROW}"
    )
    connection.execute("DELETE FROM waiters")
    connection.execute("DELETE FROM owners")
    connection.execute(f"UPDATE slots SET denied = 0, denied_at = 0 WHERE owner_id = {TOTALS_ROW}")
