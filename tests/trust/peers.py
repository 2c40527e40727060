"""Other processes, played by further engines inside this one: each has its own connection and owner's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine import registry
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, Call, Request
from localconc._engine.core.clock import SystemClock
from localconc._engine.engine import Engine
from localconc._engine.waiting import threads
from localconc._engine.waiting.mailboxes.notifier import Notifier
from localconc._engine.waiting.mailboxes.pool import MailboxPool

if TYPE_CHECKING:
    from pathlib import Path

    from localconc._engine.holding.holdings import Handle


class Peer:
    """One more process on a home."""

    def __init__(self, home: Path) -> None:
        mailboxes = MailboxPool(home)
        self.engine = Engine(home, SystemClock(), mailboxes, Notifier(home, mailboxes))

    def acquire(
        self, *names: str, slots: int = 1, timeout_seconds: float | None = 5.0, limit: int | None = None
    ) -> Handle:
        """Acquire slots of limits, waiting for them."""
        return self._acquire(Request(names, slots, CONCURRENCY, limit=limit), timeout_seconds)

    def rate_limit(self, name: str, slots: int = 1, timeout_seconds: float | None = 5.0) -> None:
        """Take slots of a decaying limit, which nobody releases."""
        self._acquire(Request((name,), slots, RATE_LIMIT), timeout_seconds)

    def _acquire(self, request: Request, timeout_seconds: float | None) -> Handle:
        return threads.acquire(self.engine, Call(request, timeout_seconds, None), "peer", 0)

    def release(self, handle: Handle) -> None:
        """Release them."""
        threads.release(self.engine, handle)

    def close(self) -> None:
        """End as a process does that ends in good order."""
        self.engine.close()


def forget_engines() -> None:
    """Close this process's own engines, as at its end; the next use makes them anew."""
    registry.forget_all()
