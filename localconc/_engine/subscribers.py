"""Who wants to be told in this process of what happens to slots."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from localconc._engine.event import Event
    from localconc._engine.model import Share

ACQUIRED = "localconc.concurrency-limit.acquired"
RELEASED = "localconc.concurrency-limit.released"

subscribers: list[Callable[[Event], object]] = []


def publish(phase: str, occurred: float, shares: Sequence[Share], slots: int, owner_id: int, serial: int) -> None:
    """Tell this process's subscribers. One that raises is logged, and harms nobody."""
    from localconc._engine.event import build

    for share in shares:
        event = build(phase, occurred, share, shares, slots, owner_id, serial)
        for subscriber in tuple(subscribers):
            try:
                subscriber(event)
            except Exception:
                logging.getLogger("localconc").exception("A subscriber to localconc's events failed on %s", event)
