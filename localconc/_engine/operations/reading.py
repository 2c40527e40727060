"""Reading the store without the slots of dead processes: limits, holders, waiters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from uuid import UUID

from localconc._engine.core import display, rules, views
from localconc._engine.operations.limits import find
from localconc._engine.queue.deadlocks import Circle, circles
from localconc._engine.store.rows import listings, past
from localconc._engine.waiting.threads import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from localconc._engine.core.records import LimitRef, LimitRow
    from localconc._engine.core.views import Holder, Limit, Waiter
    from localconc._engine.engine import Engine
    from localconc._engine.store.rows.ledger import Ledger
    from localconc._engine.store.rows.listings import HolderEntry, WaiterEntry

Result = TypeVar("Result")

#: Recent grants are those of this many seconds, among this many of the newest rows of the history.
GRANTS_WINDOW_SECONDS: Final = 5.0
GRANTS_WINDOW_ROWS: Final = 2_000


def read(engine: Engine, name_or_id: str | UUID) -> Limit:
    """Return one limit."""
    return look(engine, lambda ledger: _shown(engine, find(ledger, name_or_id)))


def read_all(engine: Engine) -> list[Limit]:
    """Return all limits, by name."""
    return look(engine, lambda ledger: [_shown(engine, row) for row in ledger.all_limits()])


def read_refs(engine: Engine, refs: Iterable[LimitRef]) -> tuple[Limit, ...]:
    """Return the limits of a grant as they are now; deleted ones are left out."""

    def work(ledger: Ledger) -> tuple[Limit, ...]:
        rows = [ledger.limit_with_uuid(ref.uuid) for ref in refs]
        return tuple(_shown(engine, row) for row in rows if row is not None)

    return look(engine, work)


def holders(engine: Engine, name_or_id: str | UUID | None) -> list[Holder]:
    """Return the holders of one limit or of all."""
    rows = look(engine, lambda ledger: listings.holders(ledger.connection, _id_of(ledger, name_or_id)))
    return [row.shown() for row in rows]


def waiters(engine: Engine, name_or_id: str | UUID | None) -> list[Waiter]:
    """Return the waiters of one limit or of all, in the order in which they will be served."""
    rows = look(engine, lambda ledger: listings.waiters(ledger.connection, _id_of(ledger, name_or_id)))
    return [row.shown(position) for position, row in enumerate(rows, 1)]


def _id_of(ledger: Ledger, name_or_id: str | UUID | None) -> int | None:
    return None if name_or_id is None else find(ledger, name_or_id).id


def _shown(engine: Engine, row: LimitRow) -> Limit:
    return views.limit(row, engine.clock.now(), engine.clock.wall())


def look(engine: Engine, work: Callable[[Ledger], Result]) -> Result:
    """Reap dead processes, and read the store."""

    def operation() -> Result:
        engine.store.database.ensure_open()
        if not engine.is_alone:
            engine.reaper.reap_all()
        return engine.store.read(work)

    return run(engine, operation)


# ---- all at one moment -----------------------------------------------------------------------------------------------


class LimitRows(NamedTuple):
    """One limit with its holders and waiters in the order of arrival; `grants` is how many there are a second."""

    limit: LimitRow
    holders: list[HolderEntry]
    waiters: list[WaiterEntry]
    grants: float


class StoreRows(NamedTuple):
    """All limits by name at one moment, which is given by both clocks."""

    now: float
    wall: float
    limits: list[LimitRows]


def snapshot(engine: Engine, *, grants: bool = False) -> StoreRows:
    """Return all limits, holders and waiters from one transaction; count recent grants only if `grants` is set."""

    def work(ledger: Ledger) -> StoreRows:
        now, wall = engine.clock.now(), engine.clock.wall()
        held: dict[int, list[HolderEntry]] = {}
        for entry in listings.holders(ledger.connection):
            held.setdefault(entry.limit_id, []).append(entry)
        queues = listings.waiters_by_limit(ledger.connection)
        per_second = _grants_per_second(ledger, wall) if grants else {}
        statuses = [
            LimitRows(row, held.get(row.id, []), queues.get(row.id, []), per_second.get(row.id, 0.0))
            for row in ledger.all_limits()
        ]
        return StoreRows(now, wall, statuses)

    return run(engine, lambda: engine.store.read(work))


def deadlocks(engine: Engine) -> list[Circle]:
    """Return the circles of requests that wait for each other forever."""
    return run(engine, lambda: engine.store.read(circles))


def notice_deaths(engine: Engine) -> None:
    """Release the slots of dead processes."""
    run(engine, engine.reaper.reap_all)


def _grants_per_second(ledger: Ledger, wall: float) -> dict[int, float]:
    rows = past.recent_grants(ledger.connection, wall - GRANTS_WINDOW_SECONDS, GRANTS_WINDOW_ROWS)
    seconds = GRANTS_WINDOW_SECONDS
    if len(rows) >= GRANTS_WINDOW_ROWS:  # the limits are so busy that these rows do not reach back this far
        seconds = max(wall - min(at for _, at in rows), 0.001)
    counts: dict[int, int] = {}
    for limit_id, _ in rows:
        counts[limit_id] = counts.get(limit_id, 0) + 1
    return {limit_id: count / seconds for limit_id, count in counts.items()}


# ---- estimates -------------------------------------------------------------------------------------------------------


def next_slot_seconds(row: LimitRow, now: float) -> float | None:
    """Return in how many seconds one more slot of a limit has drained; None if no slot will."""
    if row.decay == 0 or row.empty_at <= now:
        return None
    level = display.occupied(row, now)
    return (level - max(rules.displayed(level) - 1, 0)) / row.decay


def expected_wait_seconds(status: LimitRows, now: float, slots: int, before: int | None = None) -> float | None:
    """Return how long a request for slots, behind the first `before` waiters (or all), is likely to wait.

    Returns:
        None if that is unknown: the limit has no slots, an operator occupies some, or no holder has released any yet.
    """
    row = status.limit
    if row.limit == 0:
        return None
    pause = 0.0 if row.paused_until is None else max(0.0, row.paused_until - now)
    ahead = sum(waiter.slots for waiter in status.waiters[:before])
    if row.decay > 0:
        due_at = rules.fits_at(row.empty_at, slots, row.limit, row.decay) + ahead / row.decay
        return max(pause, due_at - now)
    if not ahead and rules.fits(row.held, slots, row.limit):
        return pause
    if not has_been_released(row) or sum(holder.slots for holder in status.holders) < row.held:
        return None
    return max(
        pause, rules.blocking_slots(slots, ahead, row.limit, row.decay) * rules.seconds_per_slot(row.decay, row.average)
    )


def has_been_released(row: LimitRow) -> bool:
    """Return whether the average occupancy of a limit has moved from its first value by a release."""
    return row.average != rules.INITIAL_AVERAGE_OCCUPANCY_SECONDS
