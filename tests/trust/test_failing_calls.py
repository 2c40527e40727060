"""Each statement and each system call fails in turn: the call succeeds, or raises a StoreError with nothing taken."""

from __future__ import annotations

import errno
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.systems import needs_fork

from .points import FAIL
from .striking import Strikes, fault_library
from .worker import SCENARIOS

pytestmark = needs_fork  # a strike is a fork of the worker

NAMES = [name for name in SCENARIOS if name != "hold_and_die"]

SQLITE_ERRORS = [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT]
SYSTEM_ERRORS = [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.EINTR]

#: What a call may end with.
FORESEEN = ("done", "StoreError", "AcquireConcurrencySlotTimeoutError")


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


def sweep(strikes: Strikes, scenario: str, error: int, stride: int) -> int:
    """Fail at every `stride`-th point until there are no more; returns how many were covered."""
    for count in itertools.count():
        at = 1 + count * stride
        answer = strikes.strike(scenario, at, FAIL, error)
        assert answer["status"] == 0, answer
        assert answer["outcome"].startswith(FORESEEN), f"{scenario}, point {at}, error {error}: {answer['outcome']}"
        assert answer["left"] == "", f"{scenario}, point {at}, error {error}: {answer}"
        if answer["counted"] < at:
            return count
    raise AssertionError


@pytest.mark.parametrize("scenario", ["by_the_general_rules", "while_handing_off", "while_creating_a_limit"])
@pytest.mark.parametrize("error", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR])
def test_a_statement_that_fails_takes_nothing(at_statements: Strikes, scenario: str, error: int) -> None:
    assert sweep(at_statements, scenario, error, 3) > 0


@pytest.mark.parametrize("scenario", ["by_the_general_rules", "while_handing_off", "while_creating_a_limit"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_system_call_that_fails_takes_nothing(at_calls: Strikes, scenario: str, error: int) -> None:
    assert sweep(at_calls, scenario, error, 5) > 0


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", NAMES)
def test_any_statement_that_fails_takes_nothing(
    at_statements: Strikes, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = sum(sweep(at_statements, scenario, error, 1) for error in SQLITE_ERRORS)
    with capsys.disabled():
        print(f"\n{scenario}: {points} failures of statements")


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", NAMES)
def test_any_system_call_that_fails_takes_nothing(
    at_calls: Strikes, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = sum(sweep(at_calls, scenario, error, 1) for error in SYSTEM_ERRORS)
    with capsys.disabled():
        print(f"\n{scenario}: {points} failures of system calls")
