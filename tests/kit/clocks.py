"""A clock that a test moves by hand."""

from __future__ import annotations

from typing import Any

from localconc._engine.waiting.mailboxes.mailbox import Mailbox


class ManualClock:
    """Time stands still until `advance`; a pause advances it to the moment that was waited for."""

    def __init__(self, now: float = 1_000.0, wall: float = 1_750_000_000.0, boot: str = "first boot") -> None:
        self.time = now
        self.wall_time = wall
        self.boot = boot
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.wall_time

    def boot_identity(self) -> str:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.time += seconds
        self.wall_time += seconds

    def pause(self, mailbox: Mailbox, until: float | None, watched_fd: int | None) -> None:
        assert until is not None, "no wakeup will ever come: the test would wait permanently"
        self.pauses.append(until - self.time)
        self.advance(max(0.0, until - self.time))

    async def pause_task(self, event: Any, until: float | None) -> None:
        self.pause(Mailbox(), until, None)
