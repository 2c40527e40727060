"""From just before a release to the return from the acquire that waited for it: `python -m tests.benchmarks.handover`.

Each kind stands beside a bare hand-over, which is one transaction that names the next waiter, and what wakes it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median

from tests.benchmarks import semaphores, table
from tests.benchmarks.handover_processes import processes
from tests.benchmarks.handover_tasks import tasks
from tests.benchmarks.handover_threads import threads
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, quantile, quantiles
from tests.benchmarks.semaphores import OURS

BARE = "bare hand-over"
WARM_UP = 10

Once = Mapping[str, Callable[[], float]]


@dataclass(frozen=True)
class Kind:
    """Who hands over to whom, and what it must reach: in bare hand-overs, in microseconds, at the 99th percentile."""

    what: str
    ways: Callable[[str], AbstractContextManager[tuple[Once, Once]]]
    bar_bare: float | None = None
    bar_microseconds: float | None = None
    bar_p99_ms: float | None = None
    needs: str = "localconc.sync"


KINDS = {
    "processes": Kind("hand-over to a sleeping process", processes, bar_bare=1.5, bar_p99_ms=1.0),
    "threads": Kind("hand-over between threads", threads, bar_bare=1.6),
    "tasks": Kind("hand-over between tasks", tasks, bar_microseconds=120.0, needs="localconc.asyncio"),
}


def measure(effort: Effort) -> Report:
    """Hand-overs of each kind: localconc and the bare ones in turns, then those of the peers."""
    figures = {name: _hand_overs(kind, effort) for name, kind in KINDS.items() if semaphores.installed(kind.needs)}
    rows = [row for name, kind in KINDS.items() for row in _rows(kind, figures.get(name, {}))]
    waits = {f"{kind}: {name}": quantiles(values) for kind, all_ in figures.items() for name, values in all_.items()}
    return Report(rows, quantiles=waits)


def _hand_overs(kind: Kind, effort: Effort) -> dict[str, list[float]]:
    with kind.ways(BARE) as (ways, peers):
        interleaved(ways, WARM_UP)
        figures = interleaved(ways, effort.choose(300, 60))
        figures.update(interleaved(peers, effort.choose(24, 5)))
    return figures


def _rows(kind: Kind, figures: Mapping[str, Sequence[float]]) -> list[Row]:
    if OURS not in figures:
        return [Row(f"{kind.what}: p50", None, "µs")]
    typical = {name: median(values) for name, values in figures.items()}
    late = {name: quantile(values, 0.99) / 1e3 for name, values in figures.items()}
    bare, ours = typical[BARE], typical[OURS]
    note = f"{ours / bare:.2f} × the bare hand-over of {bare:.0f} µs"
    bar = kind.bar_bare * bare if kind.bar_bare else kind.bar_microseconds
    return [
        Row(f"{kind.what}: p50", ours, "µs", bar, note=note, peers=_peers(typical)),
        Row(f"{kind.what}: p99", late[OURS], "ms", kind.bar_p99_ms, note=f"bare {late[BARE]:.2f} ms"),
    ]


def _peers(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: figure for name, figure in figures.items() if name not in {OURS, BARE}}


def main() -> None:
    """Print the hand-overs of the kinds that are named, or of all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.handover", description=main.__doc__)
    parser.add_argument("kinds", nargs="*", metavar="kind", choices=[*KINDS, []], help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    for name in options.kinds or KINDS:
        rows = _rows(KINDS[name], _hand_overs(KINDS[name], Effort(options.quick)))
        print("\n".join(line for row in rows for line in table.row_lines(row)), flush=True)


if __name__ == "__main__":
    main()
