"""Who holds and who waits, limit by limit, all at one moment: what operators look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from localconc._engine import rules
from localconc._engine.blocking import run
from localconc._engine.ledger import Ledger
from localconc._engine.schema import TOTAL, WAITING

if TYPE_CHECKING:
    import sqlite3

    from localconc._engine.engine import Engine
    from localconc._engine.model import LimitRow

#: Over how many seconds grants are counted, and in how many of the newest rows of the history.
GRANTS_WINDOW_SECONDS = 5.0
GRANTS_WINDOW_ROWS = 2_000

_HOLDERS = f"""
    SELECT slots.limit_id, slots.owner_id, slots.slots, owners.pid, slots.thread, owners.command, slots.acquired_at
    FROM slots LEFT JOIN owners ON owners.id = slots.owner_id
    WHERE slots.owner_id > {TOTAL}
    ORDER BY slots.since, slots.owner_id, slots.serial
"""

_WAITERS = f"""
    SELECT queue.limit_id, waiters.owner_id, waiters.slots, owners.pid, waiters.thread, owners.command,
        waiters.waiting_since
    FROM queue JOIN waiters USING (ticket) LEFT JOIN owners ON owners.id = waiters.owner_id
    WHERE waiters.state = {WAITING}
    ORDER BY queue.ticket
"""

_GRANTS = f"""
    SELECT limit_id, acquired_at
    FROM (SELECT limit_id, acquired_at FROM history ORDER BY seq DESC LIMIT {GRANTS_WINDOW_ROWS})
    WHERE acquired_at >= ?
    UNION ALL
    SELECT limit_id, acquired_at FROM slots WHERE owner_id > {TOTAL} AND acquired_at >= ?
"""


class Claim(NamedTuple):
    """Slots that somebody holds, or waits for, since a moment on the wall clock."""

    limit_id: int
    owner_id: int
    slots: int
    pid: int | None
    thread: str | None
    command: str | None
    since: float


class Standing(NamedTuple):
    """One limit with everybody on it, in the order in which they came; `grants` are those of a second, of late."""

    limit: LimitRow
    holders: list[Claim]
    waiters: list[Claim]
    grants: float


class Overview(NamedTuple):
    """All limits by name, at a moment on the clock since boot and on the wall clock.

    `untold` says what is not known of them, if a server keeps them.
    """

    now: float
    wall: float
    standings: list[Standing]
    untold: str = ""


def overview(engine: Engine, *, grants: bool = False) -> Overview:
    """Look at everything, in one transaction; at the grants of late only where asked to."""

    def work(connection: sqlite3.Connection) -> Overview:
        now, wall = engine.clock.now(), engine.clock.wall()
        holders = _by_limit(connection, _HOLDERS)
        waiters = _by_limit(connection, _WAITERS)
        per_second = _grants_per_second(connection, wall) if grants else {}
        standings = [
            Standing(row, holders.get(row.id, []), waiters.get(row.id, []), per_second.get(row.id, 0.0))
            for row in Ledger(connection).all_limits()
        ]
        return Overview(now, wall, standings)

    return run(engine, lambda: engine.database.read(work))


def notice_deaths(engine: Engine) -> None:
    """Clear up after processes that have died, so that nobody looks at what they held."""

    run(engine, engine.notice_deaths)


def _by_limit(connection: sqlite3.Connection, statement: str) -> dict[int, list[Claim]]:
    claims: dict[int, list[Claim]] = {}
    for claim in map(Claim._make, connection.execute(statement)):
        claims.setdefault(claim.limit_id, []).append(claim)
    return claims


def _grants_per_second(connection: sqlite3.Connection, wall: float) -> dict[int, float]:
    rows = connection.execute(_GRANTS, (wall - GRANTS_WINDOW_SECONDS, wall - GRANTS_WINDOW_SECONDS)).fetchall()
    seconds = GRANTS_WINDOW_SECONDS
    if len(rows) >= GRANTS_WINDOW_ROWS:  # so busy that the rows looked at do not reach back so far
        seconds = max(wall - min(at for _, at in rows), 0.001)
    counts: dict[int, int] = {}
    for limit_id, _ in rows:
        counts[limit_id] = counts.get(limit_id, 0) + 1
    return {limit_id: count / seconds for limit_id, count in counts.items()}


def occupied(row: LimitRow, now: float) -> float:
    """Occupied slots, the part of one that has not drained yet included."""
    return rules.occupied_slots(row.empty_at, now, row.decay) if row.decay > 0 else float(row.held)


def next_slot_seconds(row: LimitRow, now: float) -> float | None:
    """In how many seconds one more slot of a decaying limit has drained; None where none will."""
    if row.decay == 0 or row.empty_at <= now:
        return None
    level = occupied(row, now)
    return (level - max(rules.displayed(level) - 1, 0)) / row.decay


def expected_wait_seconds(standing: Standing, now: float, slots: int, before: int | None = None) -> float | None:
    """How long a request for slots, behind the first so many waiters (or all), is likely to wait; None if unknown."""
    row = standing.limit
    if row.limit == 0:
        return None
    ahead = sum(waiter.slots for waiter in standing.waiters[:before])
    if row.decay > 0:
        return max(0.0, rules.fits_at(row.empty_at, slots, row.limit, row.decay) + ahead / row.decay - now)
    if not ahead and rules.fits(row.held, slots, row.limit):
        return 0.0
    return rules.blocking_slots(slots, ahead, row.limit, row.decay) * rules.seconds_per_slot(row.decay, row.average)
