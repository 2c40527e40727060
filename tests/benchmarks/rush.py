"""Several processes want the same slots for a while: each contender's pairs, waits and processor time."""

import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew, line_up
from tests.benchmarks.home import temporary_home
from tests.benchmarks.rounds import interleaved
from tests.benchmarks.semaphores import Semaphore


@dataclass(frozen=True)
class Shape:
    """This many processes want slots of one limit, hold each for this long, and go on for this long."""

    processes: int
    limit: int
    hold_seconds: float
    seconds: float

    @property
    def words(self) -> str:
        """The shape as it stands in the table."""
        held = f"{self.hold_seconds * 1e3:g} ms held" if self.hold_seconds else "nothing held"
        return f"{self.processes} processes, limit {self.limit}, {held}"


@dataclass(frozen=True)
class Part:
    """What one process did: when it asked, its waits, the pairs that it completed in time, its processor time."""

    asked: Sequence[float]
    waits: Sequence[float]
    in_time: int
    cpu_seconds: float


@dataclass(frozen=True)
class Rush:
    """What one contender's turn gave: a part for each process."""

    seconds: float
    parts: Sequence[Part]

    @property
    def per_second(self) -> float:
        """Pairs completed each second by all processes together."""
        return sum(part.in_time for part in self.parts) / self.seconds

    @property
    def waits(self) -> list[float]:
        """The seconds that each request waited, of all processes."""
        return [wait for part in self.parts for wait in part.waits]

    @property
    def cpu_seconds_per_pair(self) -> float:
        """User and system time of all processes, divided by the pairs they made."""
        return sum(part.cpu_seconds for part in self.parts) / max(1, sum(len(part.waits) for part in self.parts))


def rushes(shape: Shape, contenders: Sequence[Semaphore], rounds: int) -> dict[str, list[Rush]]:
    """Let the contenders take turns at the shape, each round in another order."""
    shared = semaphores.share([shape.limit])
    with temporary_home() as directory, Crew(shape.processes, semaphores.adopt, shared) as crew:
        return interleaved({each.name: partial(_rush, crew, each, directory, shape) for each in contenders}, rounds)


def smallest_share(turns: Sequence[Rush]) -> float:
    """Return what the worst-served process got in all turns together, as a share of what would have been its due."""
    shares = _pairs_by_process(turns)
    return min(shares) * len(shares) / max(1, sum(shares))


def most_over_least(turns: Sequence[Rush]) -> float:
    """Return what the best-served process got in all turns together over what the worst-served one got."""
    shares = _pairs_by_process(turns)
    return max(shares) / max(1, min(shares))


def all_waits(turns: Mapping[str, Sequence[Rush]]) -> dict[str, list[float]]:
    """Join the waits of each contender's turns."""
    return {name: [wait for rush in rushes for wait in rush.waits] for name, rushes in turns.items()}


def _pairs_by_process(turns: Sequence[Rush]) -> list[int]:
    return [sum(part.in_time for part in parts) for parts in zip(*(rush.parts for rush in turns), strict=True)]


def _rush(crew: Crew, semaphore: Semaphore, directory: Path, shape: Shape) -> Rush:
    with semaphores.defined(semaphore, shape.limit) as name:
        return Rush(shape.seconds, crew.call(_acquire_and_release, semaphore.name, directory, name, shape))


def _acquire_and_release(contender: str, directory: Path, name: str, shape: Shape) -> Part:
    """In a worker: acquire, hold, release, until the time is up."""
    enter = semaphores.entrance(contender, directory, name, shape.limit)
    with enter():
        pass
    hold_seconds, clock = shape.hold_seconds, time.monotonic  # one clock for all processes
    begun, waits = array("d"), array("d")
    in_time = 0
    line_up()
    cpu_before = time.process_time()
    end = clock() + shape.seconds
    while (asked := clock()) < end:
        with enter():
            waits.append(clock() - asked)
            begun.append(asked)
            if hold_seconds:
                time.sleep(hold_seconds)
        in_time += clock() <= end
    return Part(begun, waits, in_time, time.process_time() - cpu_before)
