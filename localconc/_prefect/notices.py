"""What this process is told of its own slots: events for subscribers, and one warning for a limit that is not set."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid5

from localconc._prefect.shared import ACQUIRED, RELEASED, Event, moment, subscribers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._prefect.connection import LimitRef
    from localconc._prefect.leases import Hold

logger = logging.getLogger("localconc")


class Acquisition(Protocol):
    """What events tell of: a hold, or its lease after the hold is gone."""

    @property
    def id(self) -> UUID: ...

    @property
    def limits(self) -> tuple[LimitRef, ...]: ...

    @property
    def slots(self) -> int: ...


def publish_acquired(hold: Hold) -> None:
    """Tell subscribers that slots were acquired."""
    _publish(ACQUIRED, hold.acquired_at, hold)


def publish_released(hold: Acquisition) -> None:
    """Tell subscribers that slots were released."""
    _publish(RELEASED, time.time(), hold)


def _publish(phase: str, occurred: float, hold: Acquisition) -> None:
    if not subscribers:
        return
    for limit in hold.limits:
        event = _event(phase, occurred, limit, hold)
        for subscriber in tuple(subscribers):
            try:
                subscriber(event)
            except Exception:
                logger.exception("A subscriber to localconc's events failed on %s", event)


def _event(phase: str, occurred: float, limit: LimitRef, hold: Acquisition) -> Event:
    acquired_id = uuid5(limit.id, f"acquired {hold.id}")
    is_release = phase == RELEASED
    return Event(
        event=phase,
        occurred=moment(occurred),
        resource={
            "localconc.resource.id": _resource_id(limit.id),
            "localconc.resource.name": limit.name,
            "slots-acquired": str(hold.slots),
            "limit": str(limit.limit),
        },
        related=[
            {"localconc.resource.id": _resource_id(other.id), "localconc.resource.role": "concurrency-limit"}
            for other in hold.limits
            if other.id != limit.id
        ],
        id=uuid5(limit.id, f"released {hold.id}") if is_release else acquired_id,
        follows=acquired_id if is_release else None,
    )


def _resource_id(limit_id: UUID) -> str:
    return f"localconc.concurrency-limit.{limit_id}"


class UnsetWarnings:
    """Warns once of each name whose limit is missing. Nothing is stored on the server for it."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def warn(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._warned:
                continue
            self._warned.add(name)
            logger.warning(
                "The limit %r is not configured, so it is not enforced. Set it with localconc.ensure_limit(%r, "
                "limit=N), or pass limit=N to the call.",
                name,
                name,
            )
