"""How long the event loop stands still while 500 tasks and 4 processes want the same limit."""

import asyncio
from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew, announce, told_to_stop
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import quantile

TASKS, HAMMERING, LIMIT = 500, 4, 4
TICK_SECONDS = 0.001
BAR_MS = 10
NAME = "hammered"


def measure(effort: Effort) -> Report:
    """Milliseconds by which a tick of the loop comes late."""
    what = f"{TASKS} tasks and {HAMMERING} processes on one limit: loop stall p99.9"
    if not semaphores.installed("localconc.asyncio"):
        return Report([Row(what, None, "ms", BAR_MS)])
    seconds = effort.choose(5.0, 1.0)
    with temporary_home(), Crew(HAMMERING + 1) as crew:
        host, *others = crew.workers
        host.call(_define)
        for worker in others:
            worker.start(_hammer)
            worker.news()
        idle, _ = host.call(_stalls_ms, 0, seconds)
        stalls, admitted = host.call(_stalls_ms, TASKS, seconds)
        crew.stop()
        for worker in others:
            worker.result()
    note = (
        f"median {median(stalls):.2f} ms, worst {max(stalls):.1f} ms; {admitted / seconds:,.0f} taken/s; "
        f"beside the same processes, a loop without tasks: p99.9 {quantile(idle, 0.999):.1f} ms"
    )
    return Report([Row(what, quantile(stalls, 0.999), "ms", BAR_MS, note=note)])


def _define() -> None:
    from localconc.limits import create_limit

    create_limit(NAME, LIMIT)


def _hammer() -> None:
    """In a worker: take and give back without a pause, until told to stop."""
    from localconc.sync import concurrency

    announce()
    while not told_to_stop():
        with concurrency(NAME):
            pass


def _stalls_ms(tasks: int, seconds: float) -> tuple[list[float], int]:
    """In a worker: how late each tick of a loop came, and how often its tasks were admitted meanwhile."""
    return asyncio.run(_tick_beside(tasks, seconds))


async def _tick_beside(tasks: int, seconds: float) -> tuple[list[float], int]:
    loop = asyncio.get_running_loop()
    await _open()
    admissions = [0]
    over = asyncio.Event()
    stalls: list[float] = []
    end = loop.time() + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(_take_and_give(admissions, over))
        while (due := loop.time() + TICK_SECONDS) < end:
            await asyncio.sleep(TICK_SECONDS)
            stalls.append((loop.time() - due) * 1e3)
        admitted = admissions[0]
        over.set()
    return stalls, admitted


async def _open() -> None:
    """Pay for the imports and the opening of the store before anything is measured."""
    from localconc.asyncio import concurrency

    async with concurrency("opening", limit=1):
        pass


async def _take_and_give(admissions: list[int], over: asyncio.Event) -> None:
    from localconc.asyncio import concurrency

    while not over.is_set():
        async with concurrency(NAME):
            admissions[0] += 1
