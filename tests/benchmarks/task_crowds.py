"""Settings in which many tasks of one event loop wait."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from tests.benchmarks.crowds import HELD, define_free, pairs_of, see_waiters
from tests.benchmarks.growth import Measure


@contextmanager
def waiting_tasks(size: int) -> Iterator[Measure]:
    """Tasks wait for a held slot; another limit is used, by another thread."""
    from localconc.sync import concurrency

    with _loop_in_a_thread() as loop:
        with concurrency(HELD, limit=1):
            crowd = asyncio.run_coroutine_threadsafe(_take_and_give(size), loop)
            see_waiters(HELD, size)
            yield pairs_of(define_free())
        crowd.result()


@contextmanager
def queue_of_tasks(size: int) -> Iterator[Measure]:
    """Tasks queue for one slot, and queue again once they had it: each turn is a hand-over."""
    with _loop_in_a_thread() as loop:
        ring = Ring(loop, size + 1)
        see_waiters(HELD, size)
        yield ring.seconds_each_turn
        ring.end()


class Ring:
    """Tasks that pass one slot round; it rests with one of them while nobody measures."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: int) -> None:
        self._loop = loop
        self._turns = 0
        self._over = False
        self._go = asyncio.Event()
        self._rests = threading.Semaphore(0)
        self._tasks: Future[None] = asyncio.run_coroutine_threadsafe(self._all(tasks), loop)
        self._rests.acquire()

    def seconds_each_turn(self, repeat: int) -> float:
        """The mean of so many turns."""
        self._turns = repeat
        start = time.perf_counter()
        self._loop.call_soon_threadsafe(self._go.set)
        self._rests.acquire()
        return (time.perf_counter() - start) / repeat

    def end(self) -> None:
        """Let every task have its last turn."""
        self._over = True
        self._loop.call_soon_threadsafe(self._go.set)
        self._tasks.result()

    async def _all(self, tasks: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(self._go_round())

    async def _go_round(self) -> None:
        from localconc.asyncio import concurrency

        while not self._over:
            async with concurrency(HELD, limit=1):
                if self._turns == 0 and not self._over:
                    await self._rest()
                self._turns -= 1

    async def _rest(self) -> None:
        self._go.clear()
        self._rests.release()
        await self._go.wait()


async def _take_and_give(tasks: int) -> None:
    from localconc.asyncio import concurrency

    async def one() -> None:
        async with concurrency(HELD):
            pass

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(one())


@contextmanager
def _loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
