"""One figure at several sizes of something else: a process and a home for each size, measured in turns."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from tests.benchmarks.crew import Crew
from tests.benchmarks.home import live_in, temporary_home
from tests.benchmarks.rounds import interleaved, medians

Measure = Callable[[int], float]
Setting = Callable[[int], AbstractContextManager[Measure]]

_stack = ExitStack()
_measure: list[Measure] = []


def growth(setting: Setting, sizes: Sequence[int], repeat: int, rounds: int) -> list[tuple[int, float]]:
    """Each size with the median microseconds of the setting's measure, taken in turns."""
    with temporary_home() as directory, Crew(len(sizes)) as crew:
        for worker, size in zip(crew.workers, sizes, strict=True):
            worker.start(_set_up, directory / f"home-{size}", setting, size)
        for worker in crew.workers:
            worker.result()
        turns = {
            str(size): partial(worker.call, _seconds, repeat) for worker, size in zip(crew.workers, sizes, strict=True)
        }
        interleaved(turns, 1)
        spent = medians(interleaved(turns, rounds))
        crew.call(_tear_down)
    return [(size, spent[str(size)] * 1e6) for size in sizes]


def _set_up(home: Path, setting: Setting, size: int) -> None:
    live_in(home)
    _measure.append(_stack.enter_context(setting(size)))


def _seconds(repeat: int) -> float:
    return _measure[0](repeat)


def _tear_down() -> None:
    _measure.clear()
    _stack.close()
