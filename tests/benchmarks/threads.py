"""200 jobs of 10 ms on 8 threads of one process, 4 at a time."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import local

from tests.benchmarks import semaphores
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, medians
from tests.benchmarks.semaphores import OURS, Semaphore

JOBS, JOB_SECONDS, THREADS, LIMIT = 200, 0.01, 8, 4
BAR_IDEALS = 1.07


def measure(effort: Effort) -> Report:
    """Seconds for all jobs, as a multiple of the ideal."""
    ideal = JOBS * JOB_SECONDS / LIMIT
    with temporary_home() as directory, ExitStack() as cleanup:
        semaphores.share([LIMIT])
        runs: dict[str, Callable[[], float]] = {}
        for semaphore in semaphores.contenders(LIMIT):
            name = cleanup.enter_context(semaphores.defined(semaphore, LIMIT))
            runs[semaphore.name] = partial(_seconds, semaphore, directory, name)
        seconds = medians(interleaved(runs, effort.choose(3, 1)))
    ideals = {name: value / ideal for name, value in seconds.items()}
    what = f"{JOBS} jobs of {JOB_SECONDS * 1e3:.0f} ms, {THREADS} threads, limit {LIMIT}"
    note = f"the ideal is {ideal} s"
    return Report([Row(what, ideals.get(OURS), "× ideal", BAR_IDEALS, note=note, peers=semaphores.peers_of(ideals))])


def _seconds(semaphore: Semaphore, directory: Path, name: str) -> float:
    mine = local()

    def open_in_thread() -> None:
        mine.enter = semaphore.open(directory, name, LIMIT)

    def job(_: int) -> None:
        with mine.enter():
            time.sleep(JOB_SECONDS)

    with ThreadPoolExecutor(THREADS, initializer=open_in_thread) as pool:
        start = time.monotonic()
        list(pool.map(job, range(JOBS)))
        return time.monotonic() - start
