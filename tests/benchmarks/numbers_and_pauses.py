"""Slot numbers asked for, limits paused."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

from tests.benchmarks.floor import Floor
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, seconds_each

BAR_NUMBERS_MICROSECONDS = 40.0
BAR_PAUSE_MICROSECONDS = 100.0
LIMIT = 8


def measure(effort: Effort) -> Report:
    """Microseconds for each, beside bare transactions of the floor."""
    with temporary_home() as directory, ExitStack() as cleanup:
        from localconc import ensure_limit

        ensure_limit("numbered", LIMIT)
        ensure_limit("paused", LIMIT)
        floor = Floor(directory)
        cleanup.callback(floor.close)
        repeat = effort.choose(500, 100)
        turns: dict[str, Callable[[], float]] = {
            "floor": lambda: seconds_each(repeat, floor.pair) / 2,
            "numbers": lambda: _first_numbers(repeat),
            "pause": lambda: _pauses(repeat),
            "resume": lambda: _resumes(repeat),
        }
        interleaved(turns, 1)
        figures = interleaved(turns, effort.choose(21, 7))
    spent = {name: median(values) * 1e6 for name, values in figures.items()}
    note = f"a floor transaction is {spent['floor']:.1f} µs"
    return Report(
        [
            Row("slot numbers, asked for the first time", spent["numbers"], "µs", BAR_NUMBERS_MICROSECONDS, note=note),
            Row("pause_limit", spent["pause"], "µs", BAR_PAUSE_MICROSECONDS, note=note),
            Row("resume_limit", spent["resume"], "µs", BAR_PAUSE_MICROSECONDS, note=note),
        ]
    )


def _first_numbers(repeat: int) -> float:
    """Ask for the numbers of a slot beside some that have theirs."""
    from localconc.sync import acquire

    others = [acquire("numbered") for _ in range(LIMIT // 2)]
    assert sum(len(other.numbers) for other in others) == LIMIT // 2
    spent = 0.0
    for _ in range(repeat):
        with acquire("numbered") as occupancy:
            start = time.perf_counter()
            occupancy.numbers  # noqa: B018
            spent += time.perf_counter() - start
    for other in others:
        other.release()
    return spent / repeat


def _pauses(repeat: int) -> float:
    """Pause a limit, each time for longer, so that each pause counts."""
    from localconc import pause_limit

    start = time.perf_counter()
    for count in range(repeat):
        pause_limit("paused", 1 + count)
    return (time.perf_counter() - start) / repeat


def _resumes(repeat: int) -> float:
    from localconc import pause_limit, resume_limit

    spent = 0.0
    for _ in range(repeat):
        pause_limit("paused", 1)
        start = time.perf_counter()
        resume_limit("paused")
        spent += time.perf_counter() - start
    return spent / repeat
