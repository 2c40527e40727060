"""A slot goes to a sleeping process: from just before the release to the return from acquire."""

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from tests.benchmarks import bare_handover, semaphores
from tests.benchmarks.crew import Crew, Worker
from tests.benchmarks.holding import acquire, announce_and_acquire, open_semaphore, release
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, quantile, quantiles
from tests.benchmarks.semaphores import OURS, Semaphore

BAR_BARE = 2.0
BAR_P99_MS = 2.0
BARE = "bare hand-over"
SETTLE_SECONDS = 0.01


def measure(effort: Effort) -> Report:
    """Hand-overs of localconc and the bare ones in turns, then those of the peers."""
    with temporary_home() as directory, Crew(2, semaphores.adopt, semaphores.share([1])) as crew:
        giver, taker = crew.workers
        taker.call(bare_handover.lay_out, directory)
        giver.call(bare_handover.open_up, directory)
        with ExitStack() as cleanup:
            ways = {BARE: partial(_bare, giver, taker, directory)}
            peers: dict[str, Callable[[], float]] = {}
            for semaphore in semaphores.contenders(1):
                name = cleanup.enter_context(semaphores.defined(semaphore, 1))
                for worker in crew.workers:
                    worker.call(open_semaphore, semaphore.name, directory, name, 1)
                group = ways if semaphore.name == OURS else peers
                group[semaphore.name] = partial(_handed_over, giver, taker, semaphore, name)
            interleaved(ways, 10)
            figures = interleaved(ways, effort.choose(300, 60))
            figures.update(interleaved(peers, effort.choose(24, 5)))
    return Report(_rows(figures), quantiles={name: quantiles(values) for name, values in figures.items()})


def _rows(figures: dict[str, list[float]]) -> Sequence[Row]:
    typical = {name: median(values) for name, values in figures.items()}
    late = {name: quantile(values, 0.99) / 1e3 for name, values in figures.items()}
    bare = typical[BARE]
    ours = typical.get(OURS)
    note = f"{ours / bare:.2f} × the bare hand-over of {bare:.0f} µs" if ours else ""
    peers = semaphores.peers_of(typical)
    late_note = f"bare hand-over {late[BARE]:.2f} ms"
    return [
        Row("hand-over to a sleeping process: p50", ours, "µs", BAR_BARE * bare, note=note, peers=peers),
        Row("hand-over to a sleeping process: p99", late.get(OURS), "ms", BAR_P99_MS, note=late_note),
    ]


def _bare(giver: Worker, taker: Worker, directory: Path) -> float:
    taker.start(bare_handover.wait, directory)
    taker.news()
    given = giver.call(bare_handover.hand_over, directory, _settle_seconds(SETTLE_SECONDS))
    return float(taker.result() - given) / 1e3


def _handed_over(giver: Worker, taker: Worker, semaphore: Semaphore, name: str) -> float:
    giver.call(acquire, name)
    taker.start(announce_and_acquire, name)
    taker.news()
    settle_seconds = _settle_seconds(max(SETTLE_SECONDS, semaphore.longest_poll_seconds))
    given = giver.call(release, name, settle_seconds)
    taken = taker.result()
    taker.call(release, name)
    return float(taken - given) / 1e3


def _settle_seconds(spread: float) -> float:
    """Long enough for both to fall asleep, and at no fixed point of anybody's polling."""
    return SETTLE_SECONDS + random.uniform(0.0, spread)
