"""Many wait for one held slot: what their waiting costs the machine."""

import threading
import time
from pathlib import Path

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew, announce, told_to_stop
from tests.benchmarks.crowds import HELD, see_waiters
from tests.benchmarks.holding import acquire, open_semaphore, release, wait_and_give_back
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.semaphores import OURS, Semaphore

BAR_PROCESSES_PERCENT = 0.5
BAR_THREADS_PERCENT = 1.0
SETTLE_SECONDS = 0.5
LOOK_SECONDS = 0.2


def measure(effort: Effort) -> Report:
    """Percent of one core: for 50 waiting processes together, and for one process with 500 waiting threads."""
    return Report([_processes(effort), _threads(effort)])


def _processes(effort: Effort) -> Row:
    waiters = effort.choose(50, 4)
    shares: dict[str, float] = {}
    with temporary_home() as directory, Crew(waiters + 1, semaphores.adopt, semaphores.share([1])) as crew:
        for semaphore in semaphores.contenders(1):
            seconds = effort.choose(10.0, 1.0) if semaphore.name == OURS else effort.choose(3.0, 0.5)
            shares[semaphore.name] = _percent_of_processes(crew, semaphore, directory, seconds)
    what = f"{waiters} processes wait for a held slot: share of one core"
    return Row(what, shares.get(OURS), "%", BAR_PROCESSES_PERCENT, peers=semaphores.peers_of(shares))


def _percent_of_processes(crew: Crew, semaphore: Semaphore, directory: Path, seconds: float) -> float:
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


def _threads(effort: Effort) -> Row:
    threads, seconds = effort.choose(500, 50), effort.choose(10.0, 1.0)
    with temporary_home(), Crew(2) as crew:
        holder, host = crew.workers
        holder.start(_hold_until_stopped)
        holder.news()
        host.start(_wait_in_threads, threads)
        see_waiters(HELD, threads)
        time.sleep(SETTLE_SECONDS)
        before, start = host.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        percent = 100 * (host.cpu_seconds() - before) / (time.monotonic() - start)
        crew.stop()
        holder.result()
        host.result()
    return Row(f"{threads} threads wait for a held slot: share of one core", percent, "%", BAR_THREADS_PERCENT)


def _hold_until_stopped() -> None:
    """In a worker: hold the slot; the other process waits for it, so that it watches another one's life, too."""
    from localconc.sync import concurrency

    with concurrency(HELD, limit=1):
        announce()
        while not told_to_stop():
            time.sleep(LOOK_SECONDS)


def _wait_in_threads(number: int) -> None:
    """In a worker: wait in this many threads, and release at once what was acquired."""
    from localconc.sync import concurrency

    def take_and_give() -> None:
        with concurrency(HELD):
            pass

    threads = [threading.Thread(target=take_and_give) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
