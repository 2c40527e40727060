"""More processes want slots than there are: throughput, waits, processor time, and what the worst-served one got."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.contended_pair import microseconds_per_pair, uncontended_microseconds
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import quantile, quantiles
from tests.benchmarks.rush import Rush, Shape, all_waits, rushes, smallest_share
from tests.benchmarks.semaphores import OURS

BAR_WAIT_P99_MS = 5.0
BAR_CPU_MICROSECONDS = 180.0
BAR_CPU_PAIRS = 8.0

Turns = Mapping[str, Sequence[Rush]]


@dataclass(frozen=True)
class Scene:
    """A shape, the share of POSIX semaphores' throughput that it must reach, and whether the pair's cost is judged."""

    processes: int
    limit: int
    hold_seconds: float
    bar_share: float
    in_detail: bool = False


SCENES = (
    Scene(8, 4, 0.002, 0.93, in_detail=True),
    Scene(16, 4, 0.001, 0.85),
    Scene(50, 1, 0.001, 0.85),
)


def measure(effort: Effort) -> Report:
    """Every scene: contenders take turns, so that the machine's drift hits all alike."""
    rows: list[Row] = []
    waits: dict[str, list[tuple[float, float]]] = {}
    for scene in SCENES:
        shape = Shape(scene.processes, scene.limit, scene.hold_seconds, effort.choose(1.5, 0.4))
        turns = rushes(shape, semaphores.contenders(scene.limit), effort.choose(5, 1))
        rows += [_throughput(scene, shape, turns), _smallest_share(shape, turns)]
        if scene.in_detail:
            rows += [_late(shape, turns), *_processor_time(shape, turns)]
            waits = {name: quantiles([wait * 1e3 for wait in all_]) for name, all_ in all_waits(turns).items()}
    return Report(rows, quantiles=waits)


def _throughput(scene: Scene, shape: Shape, turns: Turns) -> Row:
    rates = _figures(turns, lambda rounds: median(rush.per_second for rush in rounds))
    posix = rates[semaphores.posix().name]
    ideal = shape.limit / shape.hold_seconds
    return Row(
        f"{shape.words}: throughput over POSIX semaphores'",
        rates[OURS] / posix,
        "×",
        scene.bar_share,
        "higher",
        f"{rates[OURS]:,.0f} a second, {rates[OURS] / ideal:.0%} of the ideal; POSIX semaphores {posix:,.0f}",
        semaphores.peers_of({name: rate / posix for name, rate in rates.items()}),
    )


def _smallest_share(shape: Shape, turns: Turns) -> Row:
    shares = _figures(turns, lambda rounds: smallest_share(rounds) * 100)
    return Row(
        f"{shape.words}: the worst-served process got, of its due",
        shares[OURS],
        "%",
        note=f"processor time {microseconds_per_pair(turns[OURS]):.0f} µs a pair",
        peers=semaphores.peers_of(shares),
    )


def _late(shape: Shape, turns: Turns) -> Row:
    waits = all_waits(turns)
    late = {name: quantile(all_, 0.99) * 1e3 for name, all_ in waits.items()}
    longest = ", ".join(f"{name} {max(all_) * 1e3:,.0f}" for name, all_ in waits.items())
    return Row(
        f"{shape.words}: wait p99",
        late[OURS],
        "ms",
        BAR_WAIT_P99_MS,
        note=f"longest: {longest} ms",
        peers=semaphores.peers_of(late),
    )


def _processor_time(shape: Shape, turns: Turns) -> list[Row]:
    spent = _figures(turns, microseconds_per_pair)
    alone = uncontended_microseconds()
    what = f"{shape.words}: processor time of a pair"
    note = f"of {alone:.1f} µs processor time each"
    return [
        Row(what, spent[OURS], "µs", BAR_CPU_MICROSECONDS, peers=semaphores.peers_of(spent)),
        Row(f"{what}, in uncontended pairs", spent[OURS] / alone, "×", BAR_CPU_PAIRS, note=note),
    ]


def _figures(turns: Turns, figure: Callable[[Sequence[Rush]], float]) -> dict[str, float]:
    return {name: figure(rounds) for name, rounds in turns.items()}
