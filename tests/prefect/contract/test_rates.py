"""Rate limits, on this machine and on a server."""

from __future__ import annotations

import asyncio
import time

import pytest

import localconc.asyncio
from localconc import ensure_limit, read_limit
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from localconc.sync import rate_limit


def test_a_rate_limit_admits_a_burst_and_then_its_rate(name: str) -> None:
    begun = time.monotonic()
    for _ in range(6):
        rate_limit(name, limit=3, slot_decay_per_second=10)
    assert time.monotonic() - begun >= 0.2


def test_a_rate_limit_needs_decay_on_every_limit(name: str) -> None:
    ensure_limit(f"{name}-a", 1)
    ensure_limit(f"{name}-b", 1)
    with pytest.raises(ConcurrencySlotAcquisitionError, match=f"{name}-a.*{name}-b"):
        rate_limit([f"{name}-a", f"{name}-b"])


def test_a_rate_limit_that_is_used_up_times_out(name: str) -> None:
    rate_limit(name, limit=1, slot_decay_per_second=0.01)
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit(name, timeout_seconds=0)
    assert read_limit(name).active_slots == 1


def test_a_rate_limit_takes_all_names_or_none(name: str) -> None:
    full, free = f"{name}-full", f"{name}-free"
    ensure_limit(free, 1, slot_decay_per_second=0.01)
    rate_limit(full, limit=1, slot_decay_per_second=0.01)
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit([free, full], timeout_seconds=0)
    assert read_limit(free).active_slots == 0


def test_a_strict_rate_limit_raises_for_a_missing_limit(name: str) -> None:
    with pytest.raises(ConcurrencySlotAcquisitionError, match=name):
        rate_limit(name, strict=True)


def test_a_task_is_held_back_by_a_rate_limit(name: str) -> None:
    async def main() -> float:
        begun = time.monotonic()
        for _ in range(3):
            await localconc.asyncio.rate_limit(name, limit=1, slot_decay_per_second=10)
        return time.monotonic() - begun

    assert asyncio.run(main()) >= 0.15
