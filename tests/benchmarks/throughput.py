"""Throughput against the number of processes that want the one slot, and what the worst-served process got."""

from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.report import Curve, Effort, Report
from tests.benchmarks.rush import Shape, rushes, smallest_share

SIZES = (2, 4, 8, 16, 32, 50)
HOLD_SECONDS = 0.001
PER_SECOND, DUE = "pairs a second", "worst-served process"


def measure(effort: Effort) -> Report:
    """Two curves for each contender, for the picture; the bars are those of the benchmark `contention`."""
    rates: dict[str, list[tuple[int, float]]] = {}
    shares: dict[str, list[tuple[int, float]]] = {}
    for size in SIZES:
        shape = Shape(size, 1, HOLD_SECONDS, effort.choose(1.5, 0.4))
        for name, turns in rushes(shape, semaphores.contenders(1), effort.choose(3, 1)).items():
            rates.setdefault(name, []).append((size, median(rush.per_second for rush in turns)))
            shares.setdefault(name, []).append((size, 100 * smallest_share(turns)))
    curves = [Curve(f"{PER_SECOND}: {name}", "processes", "/s", points) for name, points in rates.items()]
    curves += [Curve(f"{DUE}: {name}", "processes", "%", points) for name, points in shares.items()]
    return Report([], curves)
