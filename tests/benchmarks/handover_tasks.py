"""A slot goes from a task to another one of the same event loop, which waits."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from tests.benchmarks.bare_handover import BareHolder, BareWaiter
from tests.benchmarks.home import temporary_home
from tests.benchmarks.semaphores import OURS

Block = Callable[[], AbstractAsyncContextManager[Any]]
PEER = "asyncio"
BUSY_SECONDS = 0.001  # a loop that serves tasks goes back to work soon; it is never as cold as a process that slept


@contextmanager
def tasks(bare: str) -> Iterator[tuple[dict[str, Callable[[], float]], dict[str, Callable[[], float]]]]:
    """Give localconc and the bare hand-over, then the peer; each call hands over once and returns microseconds."""
    from localconc.asyncio import concurrency

    semaphore = asyncio.Semaphore(1)
    with temporary_home() as directory, asyncio.Runner() as runner:
        waiter, holder = BareWaiter(directory), BareHolder(directory)

        def run(hand_over: Callable[[], Awaitable[float]]) -> Callable[[], float]:
            async def once() -> float:
                return await hand_over()

            return lambda: runner.run(once())

        yield (
            {
                bare: run(lambda: _hand_over_barely(holder)),
                OURS: run(lambda: _hand_over(lambda: concurrency("tasks", limit=1))),
            },
            {PEER: run(lambda: _hand_over(lambda: semaphore))},
        )
        holder.close()
        waiter.close()


async def _hand_over(block: Block) -> float:
    async with asyncio.TaskGroup() as group:
        async with block():
            taken = group.create_task(_acquire(block))
            await asyncio.sleep(BUSY_SECONDS)
            given = time.monotonic_ns()
        return (await taken - given) / 1e3


async def _acquire(block: Block) -> int:
    async with block():
        return time.monotonic_ns()


async def _hand_over_barely(holder: BareHolder) -> float:
    """Name the next waiter in a transaction, as between processes; tasks of one loop need no datagram."""
    told = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        taken = group.create_task(_wait(told))
        await asyncio.sleep(BUSY_SECONDS)
        given = time.monotonic_ns()
        holder.name_the_next()
        told.set()
        return (await taken - given) / 1e3


async def _wait(told: asyncio.Event) -> int:
    await told.wait()
    return time.monotonic_ns()
