"""Many processes wait for one held slot: what their waiting costs the machine."""

import time
from pathlib import Path

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew
from tests.benchmarks.holding import acquire, open_semaphore, release, wait_and_give_back
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.semaphores import OURS, Semaphore

BAR_PERCENT = 1.0
SETTLE_SECONDS = 0.5


def measure(effort: Effort) -> Report:
    """Percent of one core, for all the waiting processes together."""
    waiters = effort.choose(50, 4)
    with (
        temporary_home() as directory,
        Crew(waiters + 1, semaphores.adopt, semaphores.share([1])) as crew,
    ):
        shares = {}
        for semaphore in semaphores.contenders(1):
            seconds = effort.choose(10.0, 1.0) if semaphore.name == OURS else effort.choose(3.0, 0.5)
            shares[semaphore.name] = _percent_of_a_core(crew, semaphore, directory, seconds)
    what = f"{waiters} processes wait for a held slot: share of one core"
    peers = semaphores.peers_of(shares)
    return Report([Row(what, shares.get(OURS), "%", BAR_PERCENT, peers=peers)])


def _percent_of_a_core(crew: Crew, semaphore: Semaphore, directory: Path, seconds: float) -> float:
    holder, *waiters = crew.workers
    with semaphores.defined(semaphore, 1) as name:
        crew.call(open_semaphore, semaphore.name, directory, name, 1)
        holder.call(acquire, name)
        for worker in waiters:
            worker.start(wait_and_give_back, name)
        for worker in waiters:
            worker.news()
        time.sleep(SETTLE_SECONDS)
        before = sum(worker.cpu_seconds() for worker in waiters)
        start = time.monotonic()
        time.sleep(seconds)
        spent = sum(worker.cpu_seconds() for worker in waiters) - before
        elapsed = time.monotonic() - start
        holder.call(release, name)
        for worker in waiters:
            worker.result()
    return 100 * spent / elapsed
