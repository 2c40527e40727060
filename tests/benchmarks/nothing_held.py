"""4 processes that release at once what they acquired: throughput, the longest wait, and whether order is kept."""

from collections.abc import Mapping, Sequence
from heapq import nlargest
from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rush import Rush, Shape, most_over_least, rushes
from tests.benchmarks.semaphores import OURS

PROCESSES = 4
BAR_PER_SECOND = 7_000
BAR_LONGEST_MS = 10.0
BAR_FAIR = 1.2
LATER_SECONDS = 0.001
ORDER = "at most; a request gets its place in the line a moment after it was made"
LOOKED_AT = 20


def measure(effort: Effort) -> Report:
    """With a limit of 1, where all but one wait, and of 4, where nobody has to."""
    seconds, rounds = effort.choose(2.0, 0.4), effort.choose(3, 1)
    waiting = rushes(Shape(PROCESSES, 1, 0.0, seconds), semaphores.contenders(1), rounds)
    free = rushes(Shape(PROCESSES, PROCESSES, 0.0, seconds), semaphores.contenders(PROCESSES), rounds)
    return Report([*_rows(f"{PROCESSES} processes, limit 1, nothing held", waiting), _free(free)])


def _rows(what: str, turns: Mapping[str, Sequence[Rush]]) -> list[Row]:
    rates = {name: median(rush.per_second for rush in rounds) for name, rounds in turns.items()}
    longest = {name: median(max(rush.waits) for rush in rounds) * 1e3 for name, rounds in turns.items()}
    fair = {name: most_over_least(rounds) for name, rounds in turns.items()}
    order = {name: max(most_overtakers(rush) for rush in rounds) for name, rounds in turns.items()}
    peers = semaphores.peers_of
    return [
        Row(f"{what}: throughput", rates.get(OURS), "/s", BAR_PER_SECOND, "higher", peers=peers(rates)),
        Row(f"{what}: longest wait", longest.get(OURS), "ms", BAR_LONGEST_MS, peers=peers(longest)),
        Row(f"{what}: best served over worst served", fair.get(OURS), "×", BAR_FAIR, peers=peers(fair)),
        Row(f"{what}: requests that overtook one 1 ms older", order.get(OURS), "", note=ORDER, peers=peers(order)),
    ]


def _free(turns: Mapping[str, Sequence[Rush]]) -> Row:
    rates = {name: median(rush.per_second for rush in rounds) for name, rounds in turns.items()}
    what = f"{PROCESSES} processes, limit {PROCESSES}, nothing held: throughput"
    return Row(what, rates.get(OURS), "/s", peers=semaphores.peers_of(rates))


def most_overtakers(rush: Rush) -> int:
    """Return how many requests at most got a slot before one that had been made clearly earlier."""
    requests = [
        (asked, asked + wait) for part in rush.parts for asked, wait in zip(part.asked, part.waits, strict=True)
    ]
    longest = nlargest(LOOKED_AT, requests, key=lambda request: request[1] - request[0])
    return max(
        sum(begun + LATER_SECONDS < asked and taken < granted for asked, taken in requests)
        for begun, granted in longest
    )
