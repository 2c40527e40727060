"""A slot goes from a process to one that sleeps."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.benchmarks import semaphores
from tests.benchmarks.bare_handover import BareHolder, BareWaiter
from tests.benchmarks.crew import Crew, Worker, announce
from tests.benchmarks.holding import acquire, announce_and_acquire, open_semaphore, release
from tests.benchmarks.home import temporary_home
from tests.benchmarks.semaphores import OURS, Semaphore
from tests.benchmarks.settling import SETTLE_SECONDS, let_both_sleep, settle_seconds

_bare_waiters: list[BareWaiter] = []
_bare_holders: list[BareHolder] = []


@contextmanager
def processes(bare: str) -> Iterator[tuple[dict[str, Callable[[], float]], dict[str, Callable[[], float]]]]:
    """Give localconc and the bare hand-over, then the peers; each call hands over once and returns microseconds."""
    with temporary_home() as directory, Crew(2, semaphores.adopt, semaphores.share([1])) as crew, ExitStack() as made:
        giver, taker = crew.workers
        taker.call(_open_bare_waiter, directory)
        giver.call(_open_bare_holder, directory)
        ways: dict[str, Callable[[], float]] = {bare: partial(_hand_over_barely, giver, taker)}
        peers: dict[str, Callable[[], float]] = {}
        for semaphore in semaphores.contenders(1):
            name = made.enter_context(semaphores.defined(semaphore, 1))
            for worker in crew.workers:
                worker.call(open_semaphore, semaphore.name, directory, name, 1)
            group = ways if semaphore.name == OURS else peers
            group[semaphore.name] = partial(_hand_over, giver, taker, semaphore, name)
        yield ways, peers


def _hand_over(giver: Worker, taker: Worker, semaphore: Semaphore, name: str) -> float:
    giver.call(acquire, name)
    taker.start(announce_and_acquire, name)
    taker.news()
    given = giver.call(release, name, settle_seconds(max(SETTLE_SECONDS, semaphore.longest_poll_seconds)))
    taken = taker.result()
    taker.call(release, name)
    return float(taken - given) / 1e3


def _hand_over_barely(giver: Worker, taker: Worker) -> float:
    taker.start(_wait_barely)
    taker.news()
    given = giver.call(_release_barely)
    return float(taker.result() - given) / 1e3


def _open_bare_waiter(directory: Path) -> None:
    _bare_waiters.append(BareWaiter(directory))


def _open_bare_holder(directory: Path) -> None:
    _bare_holders.append(BareHolder(directory))


def _wait_barely() -> int:
    return _bare_waiters[0].wait(announce)


def _release_barely() -> int:
    let_both_sleep()
    return _bare_holders[0].release()
