"""A holder is killed: how long until the one who waits has its slot."""

import time
from pathlib import Path
from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew, Worker
from tests.benchmarks.holding import acquire, announce_and_acquire, open_semaphore, release
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.semaphores import OURS, Semaphore

BAR_MS = 100
SETTLE_SECONDS = 0.02


def measure(effort: Effort) -> Report:
    """The wait from the kill to the slot; a peer that never gives it back has no figure."""
    candidates = [semaphore for semaphore in semaphores.contenders(1) if semaphore.survives_a_kill]
    with temporary_home() as directory, Crew(1) as waiters:
        waits = {
            semaphore.name: _waits(semaphore, waiters.workers[0], directory, effort.choose(20, 4))
            for semaphore in candidates
        }
    worst = {name: max(values) for name, values in waits.items()}
    note = f"median {median(waits[OURS]):.1f} ms" if OURS in waits else ""
    peers = semaphores.peers_of(worst)
    return Report(
        [
            Row(
                "a killed holder's slot reaches a waiter: worst",
                worst.get(OURS),
                "ms",
                BAR_MS,
                note=note,
                peers=peers,
            )
        ]
    )


def _waits(semaphore: Semaphore, waiter: Worker, directory: Path, times: int) -> list[float]:
    with semaphores.defined(semaphore, 1) as name, Crew(times) as victims:
        waiter.call(open_semaphore, semaphore.name, directory, name, 1)
        return [_wait_for(victim, waiter, semaphore, directory, name) for victim in victims.workers]


def _wait_for(victim: Worker, waiter: Worker, semaphore: Semaphore, directory: Path, name: str) -> float:
    victim.call(open_semaphore, semaphore.name, directory, name, 1)
    victim.call(acquire, name)
    waiter.start(announce_and_acquire, name)
    waiter.news()
    time.sleep(SETTLE_SECONDS)
    killed = time.monotonic_ns()
    victim.kill()
    taken: int = waiter.result()
    waiter.call(release, name)
    return (taken - killed) / 1e6
