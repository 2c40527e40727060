"""Several processes want the same slots: throughput, waits, and who got how much."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew, line_up
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, quantile, quantiles
from tests.benchmarks.semaphores import OURS, Semaphore

HOLD_SECONDS = 0.002
FAIR = 1.2
EVEN = 2
WORST_WAITS_BETTER = 10

Waits = list[float]


@dataclass(frozen=True)
class Scene:
    """So many workers want slots of one limit, hold each so long, and go on so long."""

    workers: int
    limit: int
    hold_seconds: float
    seconds: float


@dataclass(frozen=True)
class Rush:
    """What came of one contender's turn: each worker's waits, in seconds."""

    seconds: float
    by_worker: Sequence[Waits]
    in_time: Sequence[int]

    @property
    def per_second(self) -> float:
        """Slots taken per second, by all workers together."""
        return sum(self.in_time) / self.seconds

    @property
    def waits(self) -> Waits:
        """All waits."""
        return [wait for waits in self.by_worker for wait in waits]


def measure_with_holds(effort: Effort) -> Report:
    """8 processes, limit 4, each holds 2 ms."""
    rushes = _rushes(Scene(8, 4, HOLD_SECONDS, effort.choose(2.0, 0.4)), effort.choose(3, 1))
    rates = _medians(rushes, lambda rush: rush.per_second)
    late = _medians(rushes, lambda rush: quantile(rush.waits, 0.99) * 1e3)
    ideal = 4 / HOLD_SECONDS
    note = f"{rates.get(OURS, 0) / ideal:.0%} of the ideal {ideal:,.0f}; " + _fairness_note(rushes)
    rows = [
        Row(
            "8 processes, limit 4, 2 ms holds: throughput",
            rates.get(OURS),
            "/s",
            1700,
            "higher",
            note,
            semaphores.peers_of(rates),
        ),
        Row(
            "8 processes, limit 4, 2 ms holds: wait p99",
            late.get(OURS),
            "ms",
            5,
            note=_worst_note(rushes),
            peers=semaphores.peers_of(late),
        ),
    ]
    waits = {name: quantiles([wait * 1e3 for rush in turns for wait in rush.waits]) for name, turns in rushes.items()}
    return Report(rows, quantiles=waits)


def measure_without_holds(effort: Effort) -> Report:
    """4 processes that give back at once what they took, with limits 1 and 4."""
    seconds, rounds = effort.choose(2.0, 0.4), effort.choose(3, 1)
    by_limit = {limit: _Figures(_rushes(Scene(4, limit, 0.0, seconds), rounds)) for limit in (1, 4)}
    equals = {name for name in semaphores.BY_NAME if name != OURS and _keeps_our_promises(name, by_limit.values())}
    return Report([row for limit, figures in by_limit.items() for row in _rows_without_holds(limit, figures, equals)])


class _Figures:
    """What came of one scene, by contender."""

    def __init__(self, rushes: Mapping[str, Sequence[Rush]]) -> None:
        self.rates = _medians(rushes, lambda rush: rush.per_second)
        self.worst = _medians(rushes, lambda rush: max(rush.waits) * 1e3)
        self.unfairness = {name: _unfairness(turns) for name, turns in rushes.items()}


def _rows_without_holds(limit: int, figures: _Figures, equals: Collection[str]) -> list[Row]:
    rates, worst, unfairness = figures.rates, figures.worst, figures.unfairness
    what = f"4 processes, limit {limit}, no holds"
    best_equal = max((rates[name] for name in equals if name in rates), default=None)
    diskcache_worst = worst.get("diskcache")
    return [
        Row(
            f"{what}: throughput",
            rates.get(OURS),
            "/s",
            best_equal,
            "higher",
            "file-based, outlive a kill, and as even as we are: " + (", ".join(equals) or "none of the peers"),
            semaphores.peers_of(rates),
        ),
        Row(
            f"{what}: worst wait",
            worst.get(OURS),
            "ms",
            diskcache_worst / WORST_WAITS_BETTER if diskcache_worst else None,
            note="a tenth of diskcache's",
            peers=semaphores.peers_of(worst),
        ),
        Row(
            f"{what}: fairness, most over least",
            unfairness.get(OURS),
            "×",
            FAIR,
            peers=semaphores.peers_of(unfairness),
        ),
    ]


def _keeps_our_promises(name: str, scenes: Iterable[_Figures]) -> bool:
    """Slots outlive no owner, and nobody is passed over; the second is measured, in every scene, as none claims it."""
    semaphore = semaphores.BY_NAME[name]
    if not (semaphore.file_based and semaphore.survives_a_kill):
        return False
    return all(
        figures.unfairness[name] <= FAIR and figures.worst[name] <= EVEN * figures.worst.get(OURS, 0)
        for figures in scenes
        if name in figures.rates
    )


def _rushes(scene: Scene, rounds: int) -> dict[str, list[Rush]]:
    shared = semaphores.share([scene.limit])
    with temporary_home() as directory, Crew(scene.workers, semaphores.adopt, shared) as crew:
        turns = {
            semaphore.name: partial(_rush, crew, semaphore, directory, scene)
            for semaphore in semaphores.contenders(scene.limit)
        }
        return interleaved(turns, rounds)


def _rush(crew: Crew, semaphore: Semaphore, directory: Path, scene: Scene) -> Rush:
    with semaphores.defined(semaphore, scene.limit) as name:
        told = crew.call(_take_and_give, semaphore.name, directory, name, scene)
    return Rush(scene.seconds, [waits for waits, _ in told], [in_time for _, in_time in told])


def _take_and_give(contender: str, directory: Path, name: str, scene: Scene) -> tuple[Waits, int]:
    """In a worker: take a slot, hold it, give it back, until the time is up; tell the waits."""
    enter = semaphores.entrance(contender, directory, name, scene.limit)
    with enter():
        pass
    hold_seconds, clock = scene.hold_seconds, time.perf_counter
    waits: Waits = []
    in_time = 0
    line_up()
    end = clock() + scene.seconds
    while (asked := clock()) < end:
        with enter():
            waits.append(clock() - asked)
            if hold_seconds:
                time.sleep(hold_seconds)
        in_time += clock() <= end
    return waits, in_time


def _medians(rushes: Mapping[str, Sequence[Rush]], figure: Callable[[Rush], float]) -> dict[str, float]:
    return {name: median(figure(rush) for rush in turns) for name, turns in rushes.items()}


def _unfairness(turns: Sequence[Rush]) -> float:
    """What the luckiest worker got over what the unluckiest got, in all turns together."""
    workers = range(len(turns[0].in_time))
    shares = [sum(rush.in_time[worker] for rush in turns) for worker in workers]
    return max(shares) / max(1, min(shares))


def _fairness_note(rushes: Mapping[str, Sequence[Rush]]) -> str:
    return f"most over least {_unfairness(rushes[OURS]):.2f}" if OURS in rushes else ""


def _worst_note(rushes: Mapping[str, Sequence[Rush]]) -> str:
    worst = {name: max(max(rush.waits) for rush in turns) * 1e3 for name, turns in rushes.items()}
    return "worst: " + ", ".join(f"{name} {value:,.0f} ms" for name, value in worst.items())
