"""Tasks that wait, and what must hold once they are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from localconc import read_holders, read_waiters
from localconc.asyncio import concurrency
from tests.kit.invariants import check_store, over_limit
from tests.kit.processes import PATIENCE_SECONDS


async def until(condition: Callable[[], bool], timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Look again and again until it is so, and let the loop turn in between."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s"
        await asyncio.sleep(0.002)


async def until_waiting(count: int, name: str | None = None) -> None:
    """Until so many requests are in the queue."""
    await until(lambda: len(read_waiters(name)) == count)


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def hold(name: str | list[str], inside: asyncio.Event, leave: asyncio.Event, **options: object) -> None:
    """Take a slot, say so, and keep it until told to leave."""
    async with concurrency(name, **options):  # type: ignore[arg-type]
        inside.set()
        await leave.wait()


def assert_nothing_left(home: Path) -> None:
    """Nobody holds, nobody waits, and the store is sound; what is given back in the background may take a moment."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while read_holders() or read_waiters():
        assert time.monotonic() < deadline, (read_holders(), read_waiters())
        time.sleep(0.002)
    check_store(home)
    assert over_limit(home) == []
