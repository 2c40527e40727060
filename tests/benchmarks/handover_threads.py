"""A slot goes from a thread to another one of the same process, which sleeps."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from tests.benchmarks.bare_handover import BareHolder, BareWaiter
from tests.benchmarks.home import temporary_home
from tests.benchmarks.semaphores import OURS
from tests.benchmarks.settling import let_both_sleep

Block = Callable[[], AbstractContextManager[Any]]
PEER = "threading"


@contextmanager
def threads(bare: str) -> Iterator[tuple[dict[str, Callable[[], float]], dict[str, Callable[[], float]]]]:
    """Give localconc and the bare hand-over, then the peer; each call hands over once and returns microseconds."""
    from localconc.sync import concurrency

    semaphore = threading.Semaphore(1)
    with temporary_home() as directory, ThreadPoolExecutor(1) as taker:
        waiter, holder = BareWaiter(directory), BareHolder(directory)
        yield (
            {
                bare: partial(_hand_over_barely, taker, waiter, holder),
                OURS: partial(_hand_over, taker, lambda: concurrency("threads", limit=1)),
            },
            {PEER: partial(_hand_over, taker, lambda: semaphore)},
        )
        holder.close()
        waiter.close()


def _hand_over(taker: ThreadPoolExecutor, block: Block) -> float:
    begins = threading.Event()
    with block():
        taken = taker.submit(_acquire, block, begins.set)
        begins.wait()
        let_both_sleep()
        given = time.monotonic_ns()
    return _microseconds(given, taken)


def _acquire(block: Block, announce: Callable[[], object]) -> int:
    announce()
    with block():
        return time.monotonic_ns()


def _hand_over_barely(taker: ThreadPoolExecutor, waiter: BareWaiter, holder: BareHolder) -> float:
    begins = threading.Event()
    taken = taker.submit(waiter.wait, begins.set)
    begins.wait()
    let_both_sleep()
    return _microseconds(holder.release(), taken)


def _microseconds(given: int, taken: Future[int]) -> float:
    return (taken.result() - given) / 1e3
