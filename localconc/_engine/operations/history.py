"""Reading what happened: acquisitions, events, statistics."""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import TYPE_CHECKING

from localconc._engine import events as event_building
from localconc._engine.core import views
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT
from localconc._engine.events import ACQUIRED, RELEASED
from localconc._engine.operations.limits import find
from localconc._engine.operations.reading import look
from localconc._engine.store import listings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from localconc._engine.core.records import LimitRef, PastAcquisition
    from localconc._engine.core.views import Acquisition, Percentiles, Statistics
    from localconc._engine.engine import Engine
    from localconc._engine.events import Event
    from localconc._engine.store.ledger import Ledger


def read(
    engine: Engine, name_or_id: str | UUID | None, since: float | None, newest: int | None
) -> list[Acquisition]:
    """Return the acquisitions that had not ended before a moment, oldest first."""

    def work(ledger: Ledger) -> list[PastAcquisition]:
        uuid = None if name_or_id is None else find(ledger, name_or_id).uuid
        held = {(ref[0], ref[1], ref[2]) for ref in listings.held_now(ledger.connection)}
        return [
            row
            for row in listings.acquisitions(ledger.connection)
            if (uuid is None or row.uuid == uuid) and _ended_since(row, since, held)
        ]

    rows = sorted(look(engine, work), key=lambda row: row.acquired_wall)
    if newest is not None:
        rows = rows[max(0, len(rows) - newest) :]
    return [_acquisition(row) for row in rows]


def _ended_since(row: PastAcquisition, since: float | None, held: set[tuple[bytes, int, int]]) -> bool:
    if since is None or (row.uuid, row.owner_id, row.serial) in held:
        return True
    return (row.acquired_wall if row.released_wall is None else row.released_wall) >= since


def _acquisition(row: PastAcquisition) -> Acquisition:
    return views.Acquisition(
        name=row.name,
        slots=row.slots,
        numbers=views.numbers(row.numbers),
        pid=row.pid,
        thread=row.thread,
        command=row.command,
        label=row.label,
        waited_seconds=row.waited_seconds,
        acquired_at=views.moment(row.acquired_wall),
        released_at=None if row.released_wall is None else views.moment(row.released_wall),
        mode=RATE_LIMIT if row.mode == RATE_LIMIT else CONCURRENCY,
    )


# ---- statistics --------------------------------------------------------------------------------------------------


def statistics(engine: Engine, name_or_id: str | UUID, since: float | None) -> Statistics:
    """Return how a limit was used in a window that ends now."""
    until = engine.clock.wall()

    def work(ledger: Ledger) -> Statistics:
        row = find(ledger, name_or_id)
        rows = [each for each in listings.acquisitions(ledger.connection) if each.uuid == row.uuid]
        held = {(owner_id, serial) for uuid, owner_id, serial in listings.held_now(ledger.connection) if uuid == row.uuid}
        begin = min((each.acquired_wall for each in rows), default=until) if since is None else since
        begin = min(begin, until)
        inside = [each for each in rows if each.acquired_wall >= begin]
        refusals = listings.refusals(ledger.connection, row.id, begin if since is not None else 0.0)
        return views.Statistics(
            name=row.name,
            since=views.moment(begin),
            until=views.moment(until),
            acquisitions=len(inside),
            refusals=refusals,
            waited_seconds=_percentiles([each.waited_seconds for each in inside]),
            held_seconds=_percentiles(
                [
                    max(0.0, each.released_wall - each.acquired_wall)
                    for each in rows
                    if each.released_wall is not None and each.released_wall >= begin
                ]
            ),
            utilization=None if row.decay > 0 else _utilization(rows, held, row.limit, begin, until),
        )

    return look(engine, work)


def _utilization(
    rows: Sequence[PastAcquisition], held: set[tuple[int, int]], limit: int, begin: float, until: float
) -> float:
    """Return the share of a window's slot-seconds that was held; a holder counts for its part of the window."""
    seconds = 0.0
    for row in rows:
        end = until if (row.owner_id, row.serial) in held else row.released_wall
        if end is not None:
            seconds += row.slots * max(0.0, min(end, until) - max(row.acquired_wall, begin))
    window = (until - begin) * limit
    return min(1.0, seconds / window) if window > 0 else 0.0


def _percentiles(values: list[float]) -> Percentiles | None:
    """Return percentiles by the nearest rank."""
    if not values:
        return None
    values.sort()
    p50, p90, p99 = (values[max(0, ceil(share * len(values)) - 1)] for share in (0.5, 0.9, 0.99))
    return views.Percentiles(p50, p90, p99, values[-1])


# ---- events ------------------------------------------------------------------------------------------------------


def events(engine: Engine, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]:
    """Return what happened, oldest first."""

    def work(ledger: Ledger) -> tuple[bytes | None, list[PastAcquisition]]:
        uuid = None if name_or_id is None else find(ledger, name_or_id).uuid
        return uuid, listings.acquisitions(ledger.connection)

    uuid, acquisitions = look(engine, work)
    together: dict[tuple[int, int], list[LimitRef]] = {}
    for row in acquisitions:
        together.setdefault(row.call, []).append(row.ref)
    happened = [
        (at, kind, row)
        for row in acquisitions
        if uuid is None or row.uuid == uuid
        for kind, at in ((ACQUIRED, row.acquired_wall), (RELEASED, row.released_wall))
        if at is not None and (since is None or at >= since)
    ]
    happened.sort(key=lambda entry: entry[0])
    latest = deque(happened, maxlen=newest)
    return [
        event_building.build(kind, at, row.ref, together[row.call], row.slots, *row.call, more=_known_of(row))
        for at, kind, row in latest
    ]


def _known_of(row: PastAcquisition) -> dict[str, str]:
    """Return what the history knows of a caller beyond an event's own keys."""
    known = {
        "pid": str(row.pid),
        "command": row.command,
        "thread": row.thread,
        "waited-seconds": repr(row.waited_seconds),
        "mode": row.mode,
    }
    if row.label:
        known["label"] = row.label
    if row.numbers:
        known["numbers"] = row.numbers
    return known
