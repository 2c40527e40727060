"""Calls that nobody else competes with: localconc and its peers beside the floor."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.floor import Floor
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, medians, paired_ratio, seconds_each
from tests.benchmarks.semaphores import OURS, Entrance

LIMIT = 1
BAR_FLOORS = 1.2
BAR_THREE_NAMES = 2.5
BAR_RATE_FLOORS = 1.6
NAMES = ["first", "second", "third"]
FLOOR = "floor"
IN_THE_CALL = "localconc, limit given in the call"
ASYNCIO = "localconc, asyncio"
RATE_LIMIT = "one rate_limit that is admitted"
THREE_NAMES = "acquire + release of 3 names"

Batch = Callable[[], float]


def measure(effort: Effort) -> Report:
    """Microseconds for one acquire and release, and how many floors that is."""
    with temporary_home() as directory, ExitStack() as cleanup:
        semaphores.share([LIMIT])
        repeat = effort.choose(1_000, 200)
        floor = Floor(directory)
        cleanup.callback(floor.close)
        batches: dict[str, Batch] = {FLOOR: lambda: seconds_each(repeat, floor.pair)}
        for semaphore in semaphores.contenders(LIMIT):
            name = cleanup.enter_context(semaphores.defined(semaphore, LIMIT))
            batches[semaphore.name] = _blocks(semaphore.open(directory, name, LIMIT), repeat)
        if OURS in batches:
            batches.update(_other_ways(repeat, cleanup))
        interleaved(batches, 1)
        figures = interleaved(batches, effort.choose(15, 5))
    return Report(_rows(figures))


def _blocks(enter: Entrance, repeat: int) -> Batch:
    def pair() -> None:
        with enter():
            pass

    return lambda: seconds_each(repeat, pair)


def _other_ways(repeat: int, cleanup: ExitStack) -> dict[str, Batch]:
    from localconc import create_limit, sync

    for name in NAMES:
        create_limit(name, LIMIT)
    ways: dict[str, Batch] = {
        THREE_NAMES: _blocks(lambda: sync.concurrency(NAMES), repeat),
        IN_THE_CALL: _blocks(lambda: sync.concurrency("in-the-call", limit=LIMIT), repeat),
        RATE_LIMIT: lambda: seconds_each(
            repeat, lambda: sync.rate_limit("rate", limit=10**6, slot_decay_per_second=10**6)
        ),
    }
    if semaphores.installed("localconc.asyncio"):
        runner = cleanup.enter_context(asyncio.Runner())
        ways[ASYNCIO] = lambda: runner.run(_seconds_each_in_a_task(repeat))
    return ways


async def _seconds_each_in_a_task(repeat: int) -> float:
    from localconc.asyncio import concurrency

    loop = asyncio.get_running_loop()
    start = loop.time()
    for _ in range(repeat):
        async with concurrency("in-a-task", limit=LIMIT):
            pass
    return (loop.time() - start) / repeat


def _rows(figures: dict[str, list[float]]) -> list[Row]:
    floor = median(figures[FLOOR]) * 1e6
    peers = {name: _microseconds(seconds) for name, seconds in semaphores.peers_of(medians(figures)).items()}
    ours = _row("uncontended acquire + release", OURS, figures)
    three = _row(THREE_NAMES, THREE_NAMES, figures)
    rate = _row(RATE_LIMIT, RATE_LIMIT, figures)
    one = ours.measured
    return [
        replace(ours, bar=BAR_FLOORS * floor, peers=peers),
        replace(three, bar=BAR_THREE_NAMES * one if one else None),
        replace(rate, bar=BAR_RATE_FLOORS * floor / 2, note=f"a floor transaction is {floor / 2:.1f} µs"),
        *(_row(name, name, figures) for name in (IN_THE_CALL, ASYNCIO)),
    ]


def _row(what: str, contender: str, figures: dict[str, list[float]]) -> Row:
    if contender not in figures:
        return Row(what, None, "µs")
    floor = median(figures[FLOOR]) * 1e6
    floors = paired_ratio(figures[contender], figures[FLOOR])
    return Row(what, floors * floor, "µs", note=f"{floors:.2f} × the floor of {floor:.1f} µs")


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6
