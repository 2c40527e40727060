"""What happened to slots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from localconc._engine.model import Share
from localconc._engine.subscribers import RELEASED
from localconc._engine.views import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pendulum import DateTime


@dataclass(frozen=True, slots=True)
class Event:
    """Slots of one limit were acquired or released, in the shape of Prefect's events.

    Attributes:
        event: `localconc.concurrency-limit.acquired` or `localconc.concurrency-limit.released`.
        occurred: when (UTC).
        resource: `localconc.resource.id` (`localconc.concurrency-limit.<uuid>`), `localconc.resource.name`,
            `slots-acquired` and `limit`, all as strings.
        related: the other limits of the same call, each with `localconc.resource.id` and `localconc.resource.role`.
        id: identity of the event.
        follows: of a release, the id of the acquisition; else None.
    """

    event: str
    occurred: DateTime
    resource: dict[str, str]
    related: list[dict[str, str]] = field(default_factory=list)
    id: UUID = field(default=UUID(int=0))
    follows: UUID | None = None


def build(
    phase: str,
    occurred: float,
    share: Share,
    together: Sequence[Share],
    slots: int,
    owner_id: int,
    serial: int,
) -> Event:
    """The event of one share; its id follows from what it tells, so that reading it again gives the same."""
    limit_uuid = UUID(bytes=share.uuid)
    acquired_id = uuid5(limit_uuid, f"acquired {owner_id} {serial}")
    released = phase == RELEASED
    return Event(
        event=phase,
        occurred=moment(occurred),
        resource={
            "localconc.resource.id": f"localconc.concurrency-limit.{limit_uuid}",
            "localconc.resource.name": share.name,
            "slots-acquired": str(slots),
            "limit": str(share.limit),
        },
        related=[
            {
                "localconc.resource.id": f"localconc.concurrency-limit.{UUID(bytes=other.uuid)}",
                "localconc.resource.role": "concurrency-limit",
            }
            for other in together
            if other.uuid != share.uuid
        ],
        id=uuid5(limit_uuid, f"released {owner_id} {serial}") if released else acquired_id,
        follows=acquired_id if released else None,
    )
