"""What this process reports of its own slots: events to subscribers, one warning for a limit that is not set."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from localconc._prefect.shared import ACQUIRED, RELEASED, publish, subscribers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from localconc._prefect.shared import LimitRef

logger = logging.getLogger("localconc")


class Acquisition(Protocol):
    """What an event is about: a hold, or its lease after the hold is gone."""

    @property
    def id(self) -> UUID: ...

    @property
    def limits(self) -> tuple[LimitRef, ...]: ...

    @property
    def slots(self) -> int: ...


def publish_acquired(hold: Acquisition, acquired_at: float) -> None:
    """Tell subscribers that slots were acquired."""
    _publish(ACQUIRED, acquired_at, hold)


def publish_released(hold: Acquisition) -> None:
    """Tell subscribers that slots were released."""
    _publish(RELEASED, time.time(), hold)


def _publish(kind: str, occurred: float, hold: Acquisition) -> None:
    if subscribers:
        publish(kind, occurred, hold.limits, hold.slots, 0, hold.id.int)


class UnsetWarnings:
    """Warns once of each name without a limit. It stores nothing on the server."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def warn(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._warned:
                continue
            self._warned.add(name)
            logger.warning(
                "localconc: the limit %r is not configured, so it is not enforced. Set it with "
                "localconc.ensure_limit(%r, limit=N), or pass limit=N to the call.",
                name,
                name,
                extra={"localconc_kind": "not configured", "localconc_limit": name},
            )
