"""Made-up acquisitions: a limit served first come, first served, by jobs whose arrivals and durations are given."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pendulum

from localconc._engine.core.history import Acquisition

NINE = pendulum.datetime(2026, 3, 2, 9, 0, 0)
BEGIN = NINE.timestamp()


@dataclass(frozen=True)
class Job:
    """What one caller did: it asked `arrives` seconds after nine o'clock, and held for `holds` seconds."""

    arrives: float
    holds: float
    pid: int = 100
    thread: str = "MainThread"
    command: str = "python job.py"
    label: str = ""
    ending: str = "released"


def served(name: str, limit: int, jobs: Iterable[Job]) -> list[Acquisition]:
    """Serve jobs of one slot each in the order in which they arrive."""
    free = [float("-inf")] * limit
    acquisitions = []
    for job in sorted(jobs, key=lambda job: job.arrives):
        begins = max(job.arrives, heapq.heappop(free))
        heapq.heappush(free, begins + job.holds)
        acquisitions.append(acquired(job, name, begins - job.arrives))
    return acquisitions


def acquired(job: Job, name: str = "db", waited: float = 0.0, slots: int = 1) -> Acquisition:
    begins = BEGIN + job.arrives + waited
    return Acquisition(
        name=name,
        slots=slots,
        numbers=(),
        pid=job.pid,
        thread=job.thread,
        command=job.command,
        label=job.label,
        waited_seconds=waited,
        acquired_at=pendulum.from_timestamp(begins),
        released_at=pendulum.from_timestamp(begins + job.holds) if job.ending in ("released", "killed") else None,
        mode="rate_limit" if job.ending == "instant" else "concurrency",
        ending=job.ending,  # type: ignore[arg-type]
    )


def limit(name: str = "db", slots: int = 1, decay: float = 0.0) -> Any:
    """What the pictures need of a `Limit`."""
    return SimpleNamespace(name=name, limit=slots, slot_decay_per_second=decay, active=True)


def waiter(name: str = "db", since: float = 0.0, pid: int = 200, label: str = "") -> Any:
    """What the pictures need of a `Waiter`."""
    return SimpleNamespace(
        names=(name,),
        slots=1,
        pid=pid,
        thread="MainThread",
        command="python waiting.py",
        label=label,
        waiting_since=pendulum.from_timestamp(BEGIN + since),
    )
