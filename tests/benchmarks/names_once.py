"""A limit for each user: thousands of names, each used once with `limit=`."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved
from tests.benchmarks.semaphores import OURS, Semaphore

NAMES = 3_000
BAR_MICROSECONDS = 150.0


def measure(effort: Effort) -> Report:
    """Microseconds for the first and only use of a name."""
    names = effort.choose(NAMES, 300)
    with temporary_home() as directory:
        semaphores.share([1])
        turns: dict[str, Callable[[], float]] = {OURS: partial(_ours, names // 10)}
        for semaphore in semaphores.contenders(1):
            if semaphore.name != OURS and semaphore.largest_limit != 1 and semaphore.name != "multiprocessing":
                turns[semaphore.name] = partial(_peer, semaphore, directory, names // 10)
        spent = {name: median(values) * 1e6 for name, values in interleaved(turns, 10).items()}
    what = f"{names:,} names used once each with limit="
    return Report([Row(what, spent[OURS], "µs", BAR_MICROSECONDS, peers=_peers(spent))])


_used = iter(range(10**9))


def _ours(names: int) -> float:
    from localconc.sync import concurrency

    start = time.perf_counter()
    for _ in range(names):
        with concurrency(f"user-{next(_used)}", limit=1):
            pass
    return (time.perf_counter() - start) / names


def _peer(semaphore: Semaphore, directory: Path, names: int) -> float:
    keys = [f"user-{next(_used)}" for _ in range(names)]
    start = time.perf_counter()
    for key in keys:
        semaphore.define(key, 1)
        with semaphore.open(directory, key, 1)():
            pass
    spent = time.perf_counter() - start
    for key in keys:
        semaphore.dispose(key)
    return spent / names


def _peers(spent: dict[str, float]) -> dict[str, float | None]:
    return {name: figure for name, figure in spent.items() if name != OURS}
