"""What a caller gets while it holds slots on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._prefect.shared import moment

if TYPE_CHECKING:
    from pendulum import DateTime

    from localconc._prefect.keeper import PrefectKeeper
    from localconc._prefect.leases import Hold
    from localconc._prefect.shared import Limit


class Occupancy:
    """What `with concurrency(…) as occupancy` yields: the slots held, for as long as the block runs.

    Attributes:
        slots: how many slots of each limit.
        waited_seconds: how long the call waited for them.
        acquired_at: when they were taken (UTC).
        limits: the limits whose slots are held, as they are now; those not enforced are not among them.
    """

    __slots__ = ("__weakref__", "hold", "keeper", "waited_seconds")

    def __init__(self, keeper: PrefectKeeper, hold: Hold, waited_seconds: float) -> None:
        self.keeper = keeper
        self.hold = hold
        self.waited_seconds = waited_seconds

    @property
    def slots(self) -> int:
        return self.hold.slots

    @property
    def acquired_at(self) -> DateTime:
        return moment(self.hold.acquired_at)

    @property
    def limits(self) -> tuple[Limit, ...]:
        return self.keeper.read_those(limit.id for limit in self.hold.limits)

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.keeper.numbers() if self.hold.limits else ()

    def numbers_of(self, name: str) -> tuple[int, ...]:
        """Slot numbers, which a server does not give.

        Raises:
            NotSupportedError: always, if the limit is enforced.
        """
        return self.keeper.numbers() if any(limit.name == name for limit in self.hold.limits) else ()

    def belong_to(self, block: object) -> None:
        """Let the slots be released when the block is collected, if nobody releases them before."""
        self.keeper.leases.belong_to(self.hold, block)

    def release_later(self) -> None:
        """Let the background release the slots, if they are still held."""
        self.keeper.leases.release_later(self.hold)

    def __repr__(self) -> str:
        names = ", ".join(repr(limit.name) for limit in self.hold.limits) or "nothing"
        return f"<Occupancy of {self.slots} slot(s) of {names}, waited {self.waited_seconds:.3f} s>"
