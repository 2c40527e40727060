"""What a caller gets while it holds slots."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from localconc._engine.model import Hold

if TYPE_CHECKING:
    from pendulum import DateTime

    from localconc._engine.engine import Engine
    from localconc._engine.views import Limit


class Occupancy:
    """What `with concurrency(…) as occupancy` yields: the slots held, for as long as the block runs.

    Attributes:
        slots: how many slots of each limit.
        waited_seconds: how long the call waited for them.
        acquired_at: when they were taken (UTC).
        limits: the limits whose slots are held, as they are now; those not enforced are not among them.
    """

    __slots__ = ("__weakref__", "_hold", "engine", "serial", "waited_seconds")

    def __init__(self, engine: Engine | None, serial: int, hold: Hold, waited_seconds: float) -> None:
        self.serial = serial
        self.engine = engine
        self._hold = hold
        self.waited_seconds = waited_seconds

    @property
    def slots(self) -> int:
        return self._hold.slots

    @property
    def acquired_at(self) -> DateTime:
        from localconc._engine.views import moment

        return moment(self._hold.acquired_at)

    @property
    def limits(self) -> tuple[Limit, ...]:
        from localconc._engine.administration import read_shares

        return () if self.engine is None else read_shares(self.engine, self._hold.shares)

    @classmethod
    def of_nothing(cls) -> Occupancy:
        """What a call holds that names no limit, or while limits are switched off."""
        return cls(None, 0, Hold((), 0, time.time(), 0.0, ""), 0.0)

    def __repr__(self) -> str:
        names = ", ".join(repr(share.name) for share in self._hold.shares) or "nothing"
        return f"<Occupancy of {self.slots} slot(s) of {names}, waited {self.waited_seconds:.3f} s>"

    def belong_to(self, block: object) -> None:
        """Be given back at the end of a block's life, if nobody does so before; this object may live longer."""
        if self.engine is not None and self.serial in self.engine.held:
            self.engine.nets.guard(self.serial, block)

    @property
    def keeper(self) -> Engine | None:
        return self.engine

    def release_later(self) -> None:
        """See to it that the slots are given back by somebody, if nobody did."""
        self.give_back_later()

    def give_back_later(self) -> None:
        """See to it that the slots are given back by somebody, if nobody did."""
        if self.engine is not None and self.serial in self.engine.held:
            self.engine.give_back_later(self.serial)
