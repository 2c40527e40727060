"""Settings in which something is numerous: limits, waiting processes, holders, names, past events."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

from tests.benchmarks.crew import Crew
from tests.benchmarks.growth import Measure
from tests.benchmarks.holding import open_semaphore, wait_and_give_back
from tests.benchmarks.rounds import seconds_each
from tests.benchmarks.semaphores import OURS

FREE, HELD = "free", "held"
NAMES_AT_ONCE = 1_000
LOOK_SECONDS = 0.05


@contextmanager
def one_of_many_limits(size: int) -> Iterator[Measure]:
    """One limit is used, the others are there."""
    names = _define(size)
    yield pairs_of(names[size // 2])


@contextmanager
def all_of_many_limits(size: int) -> Iterator[Measure]:
    """Each call uses another limit, far from the one before."""
    from localconc.sync import concurrency

    names = _define(size)
    stride = max(1, round(size * 0.618))
    scattered = cycle([names[turn * stride % size] for turn in range(min(size, 5_000))])

    def pair() -> None:
        with concurrency(next(scattered)):
            pass

    yield lambda repeat: seconds_each(repeat, pair)


@contextmanager
def waiting_processes(size: int) -> Iterator[Measure]:
    """Processes wait for a held slot; another limit is used."""
    from localconc.sync import concurrency

    with ExitStack() as crowd:
        with concurrency(HELD, limit=1):
            workers = crowd.enter_context(Crew(size)).workers if size else ()
            for worker in workers:
                worker.call(open_semaphore, OURS, Path(), HELD, 1)
                worker.start(wait_and_give_back, HELD)
            for worker in workers:
                worker.news()
            see_waiters(HELD, size)
            yield pairs_of(define_free())
        for worker in workers:
            worker.result()


@contextmanager
def holders(size: int) -> Iterator[Measure]:
    """The limit that is used has many holders."""
    from localconc.sync import concurrency

    with ExitStack() as held:
        for _ in range(size):
            held.enter_context(concurrency(HELD, limit=size + 1))
        yield pairs_of(HELD)


@contextmanager
def names_in_the_call(size: int) -> Iterator[Measure]:
    """The call names several limits."""
    yield pairs_of(_define(size))


@contextmanager
def history(size: int) -> Iterator[Measure]:
    """So many pairs have passed before, each of which left its events."""
    pairs = pairs_of(define_free())
    pairs(size)
    yield pairs


def define_free() -> str:
    """A limit that nobody else uses."""
    from localconc.limits import ensure_limit

    ensure_limit(FREE, 1)
    return FREE


def see_waiters(name: str, size: int) -> None:
    """Return when so many wait."""
    from localconc.limits import read_waiters

    while len(read_waiters(name)) < size:
        time.sleep(LOOK_SECONDS)


def _define(size: int) -> list[str]:
    """Limits by the thousand: one call declares and uses them together."""
    from localconc.sync import concurrency

    names = [f"limit-{number}" for number in range(size)]
    for first in range(0, size, NAMES_AT_ONCE):
        with concurrency(names[first : first + NAMES_AT_ONCE], limit=1):
            pass
    return names


def pairs_of(names: str | list[str]) -> Measure:
    """Acquire and release these together."""
    from localconc.sync import concurrency

    def pair() -> None:
        with concurrency(names):
            pass

    return lambda repeat: seconds_each(repeat, pair)
