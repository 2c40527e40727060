"""What a pair costs the processors when it had to wait: `python -m tests.benchmarks.contended_pair`."""

import argparse
from collections.abc import Sequence
from statistics import median

from tests.benchmarks import semaphores
from tests.benchmarks.crew import Crew
from tests.benchmarks.home import temporary_home
from tests.benchmarks.rounds import cpu_seconds_each, quantile
from tests.benchmarks.rush import Rush, Shape, rushes, smallest_share
from tests.benchmarks.semaphores import OURS

UNCONTENDED_PAIRS = 2_000


def microseconds_per_pair(turns: Sequence[Rush]) -> float:
    """Return the processor time of all processes divided by the pairs they made; the median of the turns."""
    return median(rush.cpu_seconds_per_pair for rush in turns) * 1e6


def uncontended_microseconds() -> float:
    """Return the processor time of a pair that nobody competes for, in a process of its own."""
    with temporary_home(), Crew(1) as crew:
        return float(crew.workers[0].call(_alone)) * 1e6


def _alone() -> float:
    from localconc.sync import concurrency

    def pair() -> None:
        with concurrency("alone", limit=1):
            pass

    cpu_seconds_each(UNCONTENDED_PAIRS // 4, pair)
    return median(cpu_seconds_each(UNCONTENDED_PAIRS, pair) for _ in range(5))


def main() -> None:
    """Print the figures of localconc and of POSIX semaphores for one shape, taken in turns."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.contended_pair", description=main.__doc__)
    parser.add_argument("processes", type=int, nargs="?", default=8)
    parser.add_argument("limit", type=int, nargs="?", default=4)
    parser.add_argument("held_ms", type=float, nargs="?", default=2.0)
    parser.add_argument("seconds", type=float, nargs="?", default=1.5, help="of one turn")
    parser.add_argument("--rounds", type=int, default=4, help="turns for each")
    options = parser.parse_args()
    shape = Shape(options.processes, options.limit, options.held_ms / 1e3, options.seconds)
    posix = semaphores.posix()
    turns = rushes(shape, [semaphores.BY_NAME[OURS], posix], options.rounds)
    print(f"{shape.words}; {options.rounds} turns of {shape.seconds:g} s each")
    for name, rounds in turns.items():
        print(_line(name, rounds))
    ours, theirs = (median(rush.per_second for rush in turns[name]) for name in (OURS, posix.name))
    print(f"ratio of throughputs {ours / theirs:.3f}")
    alone = uncontended_microseconds()
    pairs = microseconds_per_pair(turns[OURS]) / alone
    print(f"an uncontended pair {alone:.1f} µs, so a contended one is {pairs:.1f} of them")


def _line(name: str, rounds: Sequence[Rush]) -> str:
    waits = [wait * 1e3 for rush in rounds for wait in rush.waits]
    by_round = " ".join(f"{rush.per_second:,.0f}" for rush in rounds)
    return (
        f"{name:>15}: {median(rush.per_second for rush in rounds):>9,.0f} /s ({by_round}), "
        f"CPU {microseconds_per_pair(rounds):>6.1f} µs a pair, "
        f"wait p50 {quantile(waits, 0.5):.2f} p99 {quantile(waits, 0.99):.2f} longest {max(waits):.1f} ms, "
        f"worst-served process {smallest_share(rounds):.0%} of its due"
    )


if __name__ == "__main__":
    main()
