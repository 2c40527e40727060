"""Which requests the fast statements serve, as this process knows the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core.calls import RATE_LIMIT
from localconc._engine.store.rows.statements import ACQUIRE_FAST, RATE_LIMIT_FAST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.core.calls import Request
    from localconc._engine.core.records import LimitRef

#: How many limits, and how many different requests, a process remembers.
_MAX_REMEMBERED: Final = 10_000


class FastWay(NamedTuple):
    """How the fast statements serve a request.

    Attributes:
        refs: its limits.
        limit_ids: the numbers of those that it holds slots of: none if nobody releases them.
        statement: run once for each limit.
        columns: of each limit, the parameters with which the statement begins.
    """

    refs: tuple[LimitRef, ...]
    limit_ids: tuple[int, ...]
    statement: str
    columns: tuple[tuple[int, int, int], ...]


def _fast_way(request: Request, refs: tuple[LimitRef, ...]) -> FastWay | None:
    """Return how the fast statements serve a request on limits that are enforced; None if the rules are needed."""
    is_rate_limit, decay = request.mode == RATE_LIMIT, request.slot_decay_per_second
    if not refs or len(refs) < len(request.names):
        return None
    for ref in refs:
        if (
            is_rate_limit != (ref.decay > 0)
            or (request.limit is not None and request.limit != ref.limit)
            or (decay is not None and decay != ref.decay)
        ):
            return None
    columns = tuple((ref.limit_id, ref.revision, ref.limit) for ref in refs)
    if is_rate_limit:
        return FastWay(refs, (), RATE_LIMIT_FAST, columns)
    return FastWay(refs, tuple(ref.limit_id for ref in refs), ACQUIRE_FAST, columns)


class FastWays:
    """What this process remembers of the requests that were admitted at once.

    Attributes:
        limits: enforced limits by name, as they were when a request last went by the rules.
        by_request: how the fast statements serve the next such request.
        crowded: names of limits that a request waited for recently. The fast statements would fail.
    """

    def __init__(self) -> None:
        self.limits: dict[str, LimitRef] = {}
        self.by_request: dict[Request, FastWay] = {}
        self.crowded: set[str] = set()

    def forget(self) -> None:
        """Forget everything, so that the rules look at each limit anew."""
        self.limits.clear()
        self.by_request.clear()
        self.crowded.clear()

    def learn(self, refs: Iterable[LimitRef]) -> None:
        """Remember limits as they are now."""
        if len(self.limits) >= _MAX_REMEMBERED:
            self.limits.clear()
        self.limits.update((ref.name, ref) for ref in refs)

    def serve(self, request: Request, refs: tuple[LimitRef, ...]) -> None:
        """Let the fast statements serve the next such request, because this one was admitted at once."""
        self.crowded.difference_update(request.names)
        way = _fast_way(request, refs)
        if way is None:
            return
        if len(self.by_request) >= _MAX_REMEMBERED:
            self.by_request.clear()
        self.by_request[request] = way

    def note_crowd(self, request: Request) -> None:
        """Let the fast statements try no more until a request is admitted at once, because this one waits."""
        self.crowded.update(request.names)
        self.by_request.clear()
