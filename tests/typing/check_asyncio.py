"""Checked by mypy, never run: what a type checker sees of the face for tasks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from localconc.asyncio import Occupancy, concurrency, rate_limit


async def use() -> None:
    async with concurrency("x") as occupancy:
        assert_type(occupancy, Occupancy)
        assert_type(occupancy.waited_seconds, float)
    async with concurrency(["x", "y"], 2, 1.5, True, 3, limit=1, slot_decay_per_second=0.5, strict=True):
        pass
    async with concurrency(None), concurrency(name for name in "xy"):
        pass
    await rate_limit("x", 1, 2.0, limit=1, slot_decay_per_second=1.0)
    concurrency("x", "1")  # type: ignore[arg-type]
    concurrency(5)  # type: ignore[arg-type]
    concurrency("x", timeout="5")  # type: ignore[call-arg]
    with concurrency("x"):  # type: ignore[attr-defined]
        pass


@concurrency("x")
async def fetch(url: str, *, tries: int = 1) -> bytes:
    return b""


class Client:
    @concurrency("x")
    async def get(self, url: str) -> int:
        return 1


@concurrency("x")  # type: ignore[arg-type]
def blocking() -> int:
    return 1


async def call() -> None:
    assert_type(await fetch("page", tries=2), bytes)
    assert_type(await Client().get("page"), int)
    await fetch(5)  # type: ignore[arg-type]
    await fetch("page", 2)  # type: ignore[call-arg]
    wrapped: Callable[[str], Coroutine[Any, Any, int]] = Client().get
    assert_type(await wrapped("page"), int)
