"""Lets each test of this directory run twice: on this machine's engine and on a Prefect server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from localconc import read_waiters

#: Tells how many calls of this process wait for slots.
Waiting = Callable[[], int]


@pytest.fixture(autouse=True)
def _needs_prefect() -> None:
    """This machine's half runs without it."""


@pytest.fixture(params=["machine", "server"], autouse=True)
def keeper(request: pytest.FixtureRequest) -> str:
    """What keeps the limits in this test."""
    if request.param == "server":
        request.getfixturevalue("on_server")
    return str(request.param)


@pytest.fixture
def waiting(keeper: str) -> Waiting:
    """How many calls of this process wait; no server tells that, but this process knows its own."""
    if keeper == "machine":
        return lambda: len(read_waiters())
    from localconc._prefect import open_keeper

    return lambda: len(open_keeper().wakeups)
