"""Slot numbers, pauses, and what the search for deadlocks costs a caller that never waits."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

from tests.benchmarks.floor import Floor
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, seconds_each

BAR_UNUSED_MICROSECONDS = 0.5
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
            "identified": lambda: seconds_each(repeat * 4, _identified),
            "unidentified": lambda: seconds_each(repeat * 4, _unidentified),
        }
        interleaved(turns, 1)
        figures = interleaved(turns, effort.choose(21, 7))
    spent = {name: median(values) * 1e6 for name, values in figures.items()}
    differences = [one - other for one, other in zip(figures["identified"], figures["unidentified"], strict=True)]
    note = f"a floor transaction is {spent['floor']:.1f} µs"
    return Report(
        [
            Row(
                "what callers pay who use neither numbers nor pauses",
                median(differences) * 1e6,
                "µs",
                BAR_UNUSED_MICROSECONDS,
                note="the thread's number, noted with what it holds, so that deadlocks can be found",
            ),
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


def _identified() -> None:
    """What begins and ends a block, but for the transactions: with the thread's number."""
    from localconc._engine.waiting.threads import of_caller

    _note_and_forget(of_caller())


def _unidentified() -> None:
    """The same as it would be without the search for deadlocks."""
    from localconc._engine.waiting.threads import of_caller

    _ = of_caller
    _note_and_forget(0)


def _note_and_forget(context: int) -> None:
    from localconc._engine import registry
    from localconc._engine.core.records import Grant

    holdings = registry.keeper().machine("measure").holdings
    handle = holdings.begin("thread", "", context)
    holdings.keep(handle.serial, Grant((), 1, 0.0, 0.0, 0.0, "thread", "", context))
    holdings.forget(handle.serial)
