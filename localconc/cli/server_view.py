"""What a server tells of its limits, as the commands that show limits want it: neither holders nor waiters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from localconc._engine.model import LimitRow
from localconc._engine.overview import Overview, Standing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.views import Limit

UNTOLD = "A Prefect server keeps these limits. It does not tell who holds slots, who waits, or for how long."


def overview_of(limits: Iterable[Limit]) -> Overview:
    """All limits of a server, at this moment."""
    now = time.monotonic()
    return Overview(now, time.time(), [Standing(_row(limit, now), [], [], 0.0) for limit in limits], UNTOLD)


def _row(limit: Limit, now: float) -> LimitRow:
    decay = limit.slot_decay_per_second
    return LimitRow(
        id=limit.id.int,
        uuid=limit.id.bytes,
        name=limit.name,
        limit=limit.limit,
        active=limit.active,
        configured=True,
        decay=decay,
        revision=0,
        created=limit.created.timestamp(),
        updated=limit.updated.timestamp(),
        held=limit.active_slots,
        empty_at=now + limit.active_slots / decay if decay else 0.0,
        average=limit.avg_slot_occupancy_seconds,
        denied=limit.denied_slots,
        denied_at=now,
        first_ticket=None,
    )
