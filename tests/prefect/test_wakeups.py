"""Hints between the threads of one process: none is lost on the way from an answer to a pause."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import pytest

from localconc._prefect.asking import wakeups
from localconc._prefect.asking.steps import Pause
from localconc._prefect.asking.wakeups import Wakeups


@pytest.fixture(autouse=True)
def _needs_prefect() -> None:
    """This needs no server."""


def _pause(*names: str, begun: float = 0.0, seen: int = 0) -> Pause:
    return Pause(until=1.0, names=names, begun=begun, seen=seen)


def _woken_by(hints: Wakeups, change: str, *pauses: Pause, name: str = "a", slots: int = 1) -> list[int]:
    """Which of these pauses end, by their place in the list, in the order in which they do."""
    woken: list[int] = []
    with ExitStack() as waiting:
        for number, pause in enumerate(pauses):
            waiting.enter_context(hints.expected(pause, partial(woken.append, number)))
        if change == "release":
            hints.released([name], slots)
        else:
            hints.changed([name])
    assert len(hints) == 0
    return woken


def test_a_release_between_the_answer_and_the_pause_ends_the_pause_at_once() -> None:
    hints = Wakeups()
    seen = hints.latest
    hints.released(["a"], 1)
    assert _woken_by(hints, "release", _pause("a", seen=seen), name="b") == [0]


def test_a_release_that_the_answer_took_into_account_ends_no_pause() -> None:
    hints = Wakeups()
    hints.released(["a"], 1)
    assert _woken_by(hints, "release", _pause("a", seen=hints.latest), name="b") == []


def test_as_many_waiters_are_woken_as_slots_were_released() -> None:
    assert _woken_by(Wakeups(), "release", *[_pause("a")] * 3, slots=2) == [0, 1]


def test_the_waiter_that_came_first_is_woken_first_though_it_paused_last() -> None:
    assert _woken_by(Wakeups(), "release", _pause("a", begun=3), _pause("b", "a", begun=2), _pause("c", begun=1)) == [1]


def test_a_change_wakes_all_waiters_of_its_limit_and_no_others() -> None:
    assert _woken_by(Wakeups(), "change", _pause("a"), _pause("b"), _pause("b", "a")) == [0, 2]


def test_no_hint_is_lost_when_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "MAX_HINTED_NAMES", 2)
    hints = Wakeups()
    seen = hints.latest
    for name in "abcd":
        hints.released([name], 1)
    assert _woken_by(hints, "release", _pause("a", seen=seen), name="x") == [0]
