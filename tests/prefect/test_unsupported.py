"""What a server can't do is said in one way, with the server's name and what to use instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import localconc
from localconc import (
    AcquireConcurrencySlotTimeoutError,
    NotSupportedError,
    pause_limit,
    read_history,
    read_holders,
    read_statistics,
    read_waiters,
    resume_limit,
)
from localconc.events import read_events
from localconc.sync import Occupancy, acquire, concurrency
from localconc.testing import assert_no_leaks, hold, peak, virtual_clock
from tests.prefect.client import command
from tests.prefect.server import PrefectServer


def _enter(block: Callable[[], object]) -> Callable[[], object]:
    return lambda: block().__enter__()  # type: ignore[attr-defined]


UNSUPPORTED: dict[str, Callable[[], object]] = {
    "holders": read_holders,
    "waiters": read_waiters,
    "events": read_events,
    "events since": lambda: read_events(since=datetime.now(UTC)),
    "leaks": assert_no_leaks,
    "clock": _enter(virtual_clock),
    "hold": _enter(lambda: hold("x")),
    "peak": lambda: peak("x"),
    "pause": lambda: pause_limit("x", 1),
    "resume": lambda: resume_limit("x"),
    "history": read_history,
    "statistics": lambda: read_statistics("x"),
}


@pytest.mark.parametrize("use", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_the_error_names_the_server(use: Callable[[], object], on_server: PrefectServer) -> None:
    with pytest.raises(NotSupportedError, match=f"the Prefect server at {on_server.url} keeps the limits"):
        use()


def test_slots_have_no_numbers(on_server: PrefectServer, name: str) -> None:
    with concurrency(name, limit=1) as occupancy:
        assert isinstance(occupancy, Occupancy)
        with pytest.raises(NotSupportedError, match=on_server.url):
            _ = occupancy.numbers
        with pytest.raises(NotSupportedError, match=on_server.url):
            occupancy.numbers_of(name)
    with concurrency(f"{name}-missing") as unset:
        assert isinstance(unset, Occupancy)
        assert unset.numbers == ()


def test_a_time_out_error_tells_what_the_server_tells(on_server: PrefectServer, name: str) -> None:
    with concurrency(name, limit=1), pytest.raises(TimeoutError) as raised, concurrency(name, timeout_seconds=0):
        pass
    error = raised.value
    assert isinstance(error, AcquireConcurrencySlotTimeoutError)
    assert (error.names, error.holders, error.requests_ahead) == ((name,), [], 0)


def test_a_lease_that_no_server_gives_is_refused(on_server: PrefectServer, name: str) -> None:
    with pytest.raises(ValueError, match="lease_duration must be from 60 to 86400 seconds"):
        acquire(name, limit=1, lease_duration=10)


@pytest.mark.usefixtures("on_server")
def test_there_is_no_home() -> None:
    with pytest.raises(NotSupportedError, match="prefect:"):
        localconc.home()


def test_doctor_repairs_nothing_on_a_server(server: PrefectServer, tmp_path: Path) -> None:
    ended = command("doctor", "--repair", url=server.url, home=tmp_path)
    assert ended.returncode == 1
    assert f"the Prefect server at {server.url} keeps the limits" in ended.stderr
