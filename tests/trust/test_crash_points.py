"""A worker is killed at each statement and at each system call, one after another; nothing is lost by it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.systems import needs_fork

from .points import DIE
from .striking import Strikes, fault_library
from .worker import SCENARIOS

KILLED = 9

pytestmark = needs_fork  # a strike is a fork of the worker

NAMES = [name for name in SCENARIOS if name != "hold_and_die"]


@pytest.fixture(scope="module")
def at_statements() -> Iterator[Strikes]:
    strikes = Strikes("statements")
    yield strikes
    strikes.close()


@pytest.fixture(scope="module")
def at_calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strikes]:
    strikes = Strikes("calls", fault_library(Path(tmp_path_factory.mktemp("library"))))
    yield strikes
    strikes.close()


def sweep(strikes: Strikes, scenario: str, stride: int) -> int:
    """Kill at every `stride`-th point, until the scenario ends by itself; returns how many points were covered."""
    for count in itertools.count():
        answer = strikes.strike(scenario, 1 + count * stride, DIE)
        if answer["status"] != KILLED:
            assert answer["outcome"] == "done", answer
            return count
    raise AssertionError


@pytest.mark.parametrize("scenario", NAMES)
def test_a_kill_between_statements_loses_nothing(at_statements: Strikes, scenario: str) -> None:
    assert sweep(at_statements, scenario, 7) > 0


@pytest.mark.parametrize("scenario", NAMES)
def test_a_kill_at_a_system_call_loses_nothing(at_calls: Strikes, scenario: str) -> None:
    assert sweep(at_calls, scenario, 9) > 0


@pytest.mark.sweep
@pytest.mark.parametrize("scenario", NAMES)
def test_a_kill_at_any_statement_loses_nothing(
    at_statements: Strikes, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = sweep(at_statements, scenario, 1)
    with capsys.disabled():
        print(f"\n{scenario}: {points} points at statements")


@pytest.mark.sweep
@pytest.mark.parametrize("scenario", NAMES)
def test_a_kill_at_any_system_call_loses_nothing(
    at_calls: Strikes, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = sweep(at_calls, scenario, 1)
    with capsys.disabled():
        print(f"\n{scenario}: {points} points at system calls")
