"""A million acquires and releases in one process: what is left in files, memory and descriptors."""

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.crew import Crew
from tests.benchmarks.home import temporary_home
from tests.benchmarks.memory import resident_megabytes
from tests.benchmarks.report import Curve, Effort, Report, Row
from tests.benchmarks.rounds import seconds_each

NAME = "soaked"
BAR_STORE_MIB = 32
BAR_GROWTH_MB = 2
STEPS = 50


class Reading(NamedTuple):
    """The state of a long-lived process, and of its store, after so many pairs."""

    pairs: int
    store_mib: float
    memory_mb: float
    descriptors: int
    microseconds_each: float


def measure(effort: Effort) -> Report:
    """The store's size at its largest, and the growth of memory and descriptors after the first tenth."""
    pairs = effort.choose(1_000_000, 20_000)
    with temporary_home() as directory, Crew(1) as crew:
        go_on = partial(crew.workers[0].call, _go_on, directory, pairs // STEPS)
        readings: list[Reading] = [go_on(step) for step in range(STEPS)]
    settled, last = readings[STEPS // 10], readings[-1]
    largest = max(reading.store_mib for reading in readings)
    speeds = f"{settled.microseconds_each:.0f} µs each at first, {last.microseconds_each:.0f} µs at last"
    what = f"{pairs:,} acquire + release"
    rows = [
        Row(f"{what}: store", largest, "MiB", BAR_STORE_MIB, note=speeds),
        Row(f"{what}: memory grows", last.memory_mb - settled.memory_mb, "MB", BAR_GROWTH_MB),
        Row(f"{what}: descriptors grow", last.descriptors - settled.descriptors, "", 0),
    ]
    return Report(rows, [_curve(readings, "store", "MiB", 1), _curve(readings, "memory", "MB", 2)])


def _curve(readings: list[Reading], what: str, unit: str, field: int) -> Curve:
    return Curve(what, "pairs", unit, [(reading.pairs, float(reading[field])) for reading in readings])


def _go_on(directory: Path, pairs: int, step: int) -> Reading:
    from localconc.sync import concurrency

    def pair() -> None:
        with concurrency(NAME, limit=1):
            pass

    seconds = seconds_each(pairs, pair)
    files = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return Reading((step + 1) * pairs, files / 2**20, resident_megabytes(), _descriptors(), seconds * 1e6)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
