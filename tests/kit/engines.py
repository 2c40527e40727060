"""Engines that stand for further processes inside this one; their wakeups get lost, so that all rests on the store."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from localconc._engine.core.clock import Clock
from localconc._engine.engine import Engine
from localconc._engine.liveness.owner import Owner
from localconc._engine.waiting.mailboxes.mailbox import Mailbox

Wakeups = list[tuple[str, tuple[int, int, float, float]]]


class SilentMailboxes:
    """Mailboxes that have addresses, and receive nothing."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, owner: Owner) -> Mailbox:
        self._taken += 1
        return Mailbox(f"{owner.key}:{self._taken}")

    def put(self, mailbox: Any) -> None:
        """Nothing is kept."""

    def wake_answered(self, queued: Collection[str]) -> None:
        """Nobody sleeps."""

    def note_poller(self, mailbox: Any) -> None:
        """Nobody polls."""

    pollers = 0

    def __len__(self) -> int:
        return self._taken

    def close(self) -> None:
        """Nothing is open."""

    def close_in_child(self) -> None:
        """Nothing is open."""


class SilentNotifier:
    """Sends nothing, and keeps what it should have sent."""

    def __init__(self) -> None:
        self.sent: Wakeups = []

    def send(self, wakeups: Wakeups) -> None:
        self.sent += wakeups

    def close(self) -> None:
        """Nothing is open."""


def silent_engine(directory: Path, clock: Clock) -> Engine:
    """Return an engine whose waiters are never told anything."""
    return Engine(directory, clock, SilentMailboxes(), SilentNotifier())


def kill(engine: Engine) -> None:
    """End an engine as SIGKILL ends a process: the kernel closes what it had open, and nothing else happens."""
    engine.holdings.forget_all()
    engine.membership.close_in_child()  # closes the locked file without removing it
    engine.store.database.close()
    engine.reaper.forget()
