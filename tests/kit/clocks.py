"""A clock that a test moves by hand, and a mailbox that nobody has to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localconc._engine.waiting.mailbox import Mailbox


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
        assert until is not None, "nobody will ever come: the test would wait for good"
        self.pauses.append(until - self.time)
        self.advance(max(0.0, until - self.time))

    async def pause_task(self, arrival: Any, until: float | None) -> None:
        self.pause(Mailbox(), until, None)


class SilentMailbox(Mailbox):
    """Has an address, receives nothing."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.address = "localconc-nobody"
