"""Events of what this process acquires or releases, for its subscribers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from localconc._engine.core.views import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pendulum import DateTime

    from localconc._engine.core.records import LimitRef

ACQUIRED: Final = "localconc.concurrency-limit.acquired"
RELEASED: Final = "localconc.concurrency-limit.released"


@dataclass(frozen=True, slots=True)
class Event:
    """An acquisition or release of slots of one limit, in the shape of Prefect's events.

    Attributes:
        event: `localconc.concurrency-limit.acquired` or `localconc.concurrency-limit.released`.
        occurred: when it happened (UTC).
        resource: `localconc.resource.id` (`localconc.concurrency-limit.<uuid>`), `localconc.resource.name`,
            `slots-acquired` and `limit`, all as strings. An event from the history also describes the caller.
        related: the other limits of the same call, each with `localconc.resource.id` and `localconc.resource.role`.
        id: identifies the event.
        follows: for a release, the id of the acquisition; else None.
    """

    event: str
    occurred: DateTime
    resource: dict[str, str]
    related: list[dict[str, str]] = field(default_factory=list)
    id: UUID = field(default=UUID(int=0))
    follows: UUID | None = None


def build(
    kind: str,
    occurred: float,
    ref: LimitRef,
    together: Sequence[LimitRef],
    slots: int,
    owner_id: int,
    serial: int,
    more: Mapping[str, str] | None = None,
) -> Event:
    """Build the event of one limit. Its id is computed from its content, so that every reader gets the same id.

    Args:
        kind: `ACQUIRED` or `RELEASED`.
        together: all limits of the call.
        more: further entries for `resource`.
    """
    limit_uuid = UUID(bytes=ref.uuid)
    acquired_id = uuid5(limit_uuid, f"acquired {owner_id} {serial}")
    is_release = kind == RELEASED
    return Event(
        event=kind,
        occurred=moment(occurred),
        resource={
            "localconc.resource.id": f"localconc.concurrency-limit.{limit_uuid}",
            "localconc.resource.name": ref.name,
            "slots-acquired": str(slots),
            "limit": str(ref.limit),
            **(more or {}),
        },
        related=[
            {
                "localconc.resource.id": f"localconc.concurrency-limit.{UUID(bytes=other.uuid)}",
                "localconc.resource.role": "concurrency-limit",
            }
            for other in together
            if other.uuid != ref.uuid
        ],
        id=uuid5(limit_uuid, f"released {owner_id} {serial}") if is_release else acquired_id,
        follows=acquired_id if is_release else None,
    )


# ---- subscribers of this process -----------------------------------------------------------------------------------

#: The functions to call with each event. Most programs have none, and then no event is built.
subscribers: list[Callable[[Event], object]] = []


def publish(kind: str, occurred: float, refs: Sequence[LimitRef], slots: int, owner_id: int, serial: int) -> None:
    """Call this process's subscribers; log an exception of one, and continue."""
    for ref in refs:
        event = build(kind, occurred, ref, refs, slots, owner_id, serial)
        for subscriber in tuple(subscribers):
            try:
                subscriber(event)
            except Exception:
                logging.getLogger("localconc").exception("A subscriber to localconc's events failed on %s", event)
