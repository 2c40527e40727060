"""Ten thousand tasks wait in one process: what they weigh, and what their waiting costs."""

import asyncio
import time
from contextlib import suppress
from typing import NamedTuple

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew, told_to_stop
from tests.benchmarks.home import temporary_home
from tests.benchmarks.memory import resident_megabytes
from tests.benchmarks.report import Effort, Report, Row

NAME = "crowded"
BAR_KB_EACH = 6.0
BAR_PERCENT = 1.0
LOOK_SECONDS = 0.05


class Crowd(NamedTuple):
    """What a crowd of waiting tasks cost."""

    megabytes: float
    percent_of_a_core: float
    gathering_seconds: float
    serving_seconds: float


def measure(effort: Effort) -> Report:
    """Megabytes added, and percent of a core while nothing is released."""
    tasks = effort.choose(10_000, 1_000)
    bar_megabytes = BAR_KB_EACH * tasks / 1e3
    weight, cost = f"{tasks:,} tasks wait: added memory", f"{tasks:,} tasks wait: share of one core"
    if not semaphores.installed("localconc.asyncio"):
        return Report([Row(weight, None, "MB", bar_megabytes), Row(cost, None, "%", BAR_PERCENT)])
    with temporary_home(), Crew(2) as crew:
        host, onlooker = crew.workers
        host.start(_crowd, tasks, effort.choose(5.0, 1.0))
        onlooker.call(_see_all_wait, tasks)
        crew.stop()
        crowd: Crowd = host.result()
    joined, served = (seconds * 1e6 / tasks for seconds in (crowd.gathering_seconds, crowd.serving_seconds))
    note = f"{joined:.0f} µs each to join the queue, {served:.0f} µs each to be served"
    return Report(
        [
            Row(weight, crowd.megabytes, "MB", bar_megabytes),
            Row(cost, crowd.percent_of_a_core, "%", BAR_PERCENT, note=note),
        ]
    )


def _see_all_wait(tasks: int) -> None:
    """In another worker: return when the queue is complete; looking would add to the first one's memory."""
    from localconc.errors import LimitNotFoundError
    from localconc.limits import read_waiters

    seen = 0
    while seen < tasks:
        time.sleep(LOOK_SECONDS)
        with suppress(LimitNotFoundError):
            seen = len(read_waiters(NAME))


def _crowd(tasks: int, seconds: float) -> Crowd:
    """In a worker: let tasks gather behind a held slot, watch them wait, then let them all be served."""
    return asyncio.run(_gather(tasks, seconds))


async def _gather(tasks: int, seconds: float) -> Crowd:
    from localconc.asyncio import concurrency

    async def take_and_give() -> None:
        async with concurrency(NAME):
            pass

    async with concurrency(NAME, limit=1):
        before = resident_megabytes()
        start = time.monotonic()
        crowd = [asyncio.create_task(take_and_give()) for _ in range(tasks)]
        while not told_to_stop():
            await asyncio.sleep(LOOK_SECONDS)
        gathering_seconds = time.monotonic() - start
        megabytes = resident_megabytes() - before
        percent = await _percent_of_a_core(seconds)
        start = time.monotonic()
    await asyncio.gather(*crowd)
    return Crowd(megabytes, percent, gathering_seconds, time.monotonic() - start)


async def _percent_of_a_core(seconds: float) -> float:
    await asyncio.sleep(LOOK_SECONDS)
    spent, start = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    return 100 * (time.process_time() - spent) / (time.monotonic() - start)
