"""Reading the past: acquisitions, statistics, events."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core import display
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT
from localconc._engine.core.history import AcquisitionRow, Hold, acquisitions_of, statistics_of
from localconc._engine.events import ACQUIRED, RELEASED, build
from localconc._engine.operations.limits import find
from localconc._engine.operations.reading import look
from localconc._engine.store.rows import past
from localconc._engine.store.rows.schema import INSTANT, KILLED, UNSEEN

if TYPE_CHECKING:
    from uuid import UUID

    from localconc._engine.core.history import Acquisition, Ending, Statistics
    from localconc._engine.core.records import LimitRef, LimitRow
    from localconc._engine.core.views import Event
    from localconc._engine.engine import Engine
    from localconc._engine.store.rows.ledger import Ledger
    from localconc._engine.store.rows.past import PastAcquisition

_ENDINGS: Final[dict[int | None, Ending]] = {None: "released", KILLED: "killed", UNSEEN: "unseen", INSTANT: "instant"}


def read(engine: Engine, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Acquisition]:
    """Return the acquisitions that had not ended before a moment, oldest first."""

    def work(ledger: Ledger) -> list[PastAcquisition]:
        limit_id = None if name_or_id is None else find(ledger, name_or_id).id
        return past.acquisitions(ledger.connection, limit_id)

    rows = [row for row in look(engine, work) if since is None or _end(row) >= since]
    rows.sort(key=lambda row: (row.acquired_wall, row.call))
    if newest is not None:
        rows = rows[max(0, len(rows) - newest) :]
    return acquisitions_of(map(_plain, rows))


def _end(row: PastAcquisition) -> float:
    """Return when an acquisition ended: infinity while it is held; when it was made, if no process saw the end."""
    if row.is_held:
        return inf
    return row.acquired_wall if row.released_wall is None else row.released_wall


def _plain(row: PastAcquisition) -> AcquisitionRow:
    return AcquisitionRow(
        row.name,
        row.slots,
        display.numbers(row.numbers),
        row.pid,
        row.thread,
        row.command,
        row.label,
        row.waited_seconds,
        row.acquired_wall,
        row.released_wall,
        RATE_LIMIT if row.ending == INSTANT else CONCURRENCY,
        "held" if row.is_held else _ENDINGS.get(row.ending, "unseen"),
    )


class _Past(NamedTuple):
    """What the statistics of some limits are made of, from one look."""

    limits: list[LimitRow]
    begin: float | None
    holds: dict[int, list[Hold]]
    refusals: dict[int, int]


def statistics(engine: Engine, name_or_id: str | UUID | None, since: float | None) -> list[Statistics]:
    """Return how a limit was used in a window that ends now, or how each limit was, by name.

    One query reads the past of all limits: the history has no index, so a query for each would read all of it.
    """
    until = engine.clock.wall()

    def work(ledger: Ledger) -> _Past:
        connection = ledger.connection
        limits = ledger.all_limits() if name_or_id is None else [find(ledger, name_or_id)]
        begin = since
        complete = past.complete_since(connection)
        if complete is not None and (since is None or since < complete):
            begin = complete  # what was dropped would count as idle time
        holds: dict[int, list[Hold]] = {}
        limit_id = None if name_or_id is None else limits[0].id
        for limit, waited, acquired, released, slots, is_held in past.holds(connection, limit_id):
            holds.setdefault(limit, []).append(Hold(waited, acquired, inf if is_held else released, slots))
        return _Past(limits, begin, holds, past.refusals(connection, 0.0 if begin is None else begin))

    found = look(engine, work)
    return [
        statistics_of(
            row.name,
            found.holds.get(row.id, ()),
            limit=row.limit,
            slot_decay_per_second=row.decay,
            since=found.begin,
            until=until,
            refusals=found.refusals.get(row.id, 0),
        )
        for row in found.limits
    ]


# ---- events ------------------------------------------------------------------------------------------------------


def events(engine: Engine, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]:
    """Return the events in the history, oldest first."""

    def work(ledger: Ledger) -> tuple[bytes | None, list[PastAcquisition]]:
        uuid = None if name_or_id is None else find(ledger, name_or_id).uuid
        return uuid, past.acquisitions(ledger.connection)

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
        build(kind, at, row.ref, together[row.call], row.slots, *row.call, more=_known_of(row))
        for at, kind, row in latest
    ]


def _known_of(row: PastAcquisition) -> dict[str, str]:
    """Return what the history tells of a caller beyond the keys that every event has."""
    known = {
        "pid": str(row.pid),
        "command": row.command,
        "thread": row.thread,
        "waited-seconds": repr(row.waited_seconds),
        "mode": RATE_LIMIT if row.ending == INSTANT else CONCURRENCY,
    }
    if row.label:
        known["label"] = row.label
    if row.numbers:
        known["numbers"] = row.numbers
    return known
