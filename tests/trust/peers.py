"""Other processes, played by further engines inside this one: each has its own connection and owner's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine import acquiring
from localconc._engine.blocking import Post, drive
from localconc._engine.engine import Engine
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, Request

if TYPE_CHECKING:
    from pathlib import Path

    from localconc._engine.core.clock import Clock
    from localconc._engine.occupancy import Occupancy


class Peer:
    """One more process on a home."""

    def __init__(self, home: Path, clock: Clock | None = None) -> None:
        self.engine = Engine(home, clock)

    def acquire(
        self, *names: str, slots: int = 1, timeout_seconds: float | None = 5.0, limit: int | None = None
    ) -> Occupancy:
        """Take slots of limits, waiting for them."""
        request = Request(names, slots, CONCURRENCY, limit=limit)
        return self._acquire(request, timeout_seconds)

    def rate_limit(self, name: str, slots: int = 1, timeout_seconds: float | None = 5.0) -> None:
        """Take slots of a decaying limit for good."""
        self._acquire(Request((name,), slots, RATE_LIMIT), timeout_seconds)

    def _acquire(self, request: Request, timeout_seconds: float | None) -> Occupancy:
        post = Post(self.engine)
        steps = acquiring.acquire(self.engine, request, "peer", timeout_seconds, None, post.mailbox, polls=True)
        return drive(self.engine, steps, post)

    def give_back(self, occupancy: Occupancy) -> None:
        """Give them back."""
        drive(self.engine, acquiring.give_back(self.engine, occupancy), Post(self.engine))

    def close(self) -> None:
        """End as a process does that ends in good order."""
        self.engine.close()
