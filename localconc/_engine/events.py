"""Events of what this process acquires or releases, for its subscribers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from localconc._engine.core.records import LimitRef
    from localconc._engine.core.views import Event

ACQUIRED: Final = "localconc.concurrency-limit.acquired"
RELEASED: Final = "localconc.concurrency-limit.released"


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
    from uuid import UUID, uuid5  # few programs have subscribers, and these have loaded all of it

    from localconc._engine.core.display import moment
    from localconc._engine.core.views import Event

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
