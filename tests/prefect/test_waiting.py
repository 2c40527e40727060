"""How a call waits for a server that sends no wakeups: when it asks again, and that nothing holds renewals up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("httpx", reason="Prefect is not installed")

import localconc.asyncio
from localconc import delete_limit, ensure_limit, read_limit, update_limit
from localconc._prefect import close_keepers, open_keeper
from localconc._prefect.acquiring import acquisitions, admission
from localconc._prefect.holding import leases
from localconc.errors import ConcurrencySlotAcquisitionError, StoreError
from localconc.sync import concurrency
from tests.kit.processes import wait_until
from tests.prefect.faults import Wire, install
from tests.prefect.server import PrefectServer


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, on_server: PrefectServer) -> Iterator[Wire]:
    """The way to the server, which counts what passes."""
    close_keepers()
    yield install(monkeypatch)
    close_keepers()


def _attempts(wire: Wire) -> int:
    return sum(request.endswith("/increment-with-lease") for request in wire.seen)


def test_acquire_and_release_are_two_requests(wire: Wire, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "KNOWN_SECONDS", 600.0)
    with concurrency(name, limit=1):
        pass
    before = len(wire.seen)
    with concurrency(name, limit=1):
        pass
    assert [request.rpartition("/")[2] for request in wire.seen[before:]] == [
        "increment-with-lease",
        "decrement-with-lease",
    ]


def test_a_retry_is_one_more_attempt(wire: Wire, name: str) -> None:
    with concurrency(name, limit=1):
        before = _attempts(wire)
        with pytest.raises(ConcurrencySlotAcquisitionError, match="no retries"), concurrency(name, max_retries=1):
            pass
        assert _attempts(wire) == before + 2


def test_a_waiter_asks_again_when_the_server_advises_to_and_not_before(wire: Wire, name: str) -> None:
    with concurrency(name, limit=1):
        before = _attempts(wire)
        with pytest.raises(TimeoutError), concurrency(name, timeout_seconds=2):
            pass
        assert _attempts(wire) <= before + 5


def test_slots_released_by_the_same_process_reach_a_waiter_at_once(
    on_server: PrefectServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquisitions, "MIN_POLL_SECONDS", 60.0)
    entered: list[float] = []

    def wait() -> None:
        with concurrency(name):
            entered.append(time.monotonic())

    with concurrency(name, limit=1):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: len(open_keeper().wakeups) == 1)
    released = time.monotonic()
    thread.join()
    assert entered[0] - released < acquisitions.MAX_POLL_SECONDS / 2


def test_they_reach_a_waiting_task_too(on_server: PrefectServer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquisitions, "MIN_POLL_SECONDS", 60.0)

    async def wait() -> float:
        async with localconc.asyncio.concurrency(name):
            return time.monotonic()

    async def main() -> float:
        async with localconc.asyncio.concurrency(name, limit=1):
            task = asyncio.create_task(wait())
            await asyncio.to_thread(wait_until, lambda: len(open_keeper().wakeups) == 1)
        released = time.monotonic()
        return await task - released

    assert asyncio.run(main()) < acquisitions.MAX_POLL_SECONDS / 2


@pytest.mark.parametrize(
    "change",
    [
        lambda name: ensure_limit(name, 1),
        lambda name: update_limit(read_limit(name).id, limit=1),
        lambda name: update_limit(name, name=f"{name}-new"),
        delete_limit,
    ],
    ids=["ensure", "update", "rename", "delete"],
)
def test_a_change_by_the_same_process_reaches_a_waiter_at_once(
    change: Callable[[str], object], on_server: PrefectServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acquisitions, "MIN_POLL_SECONDS", 60.0)
    ensure_limit(name, 0)
    inside = threading.Event()

    def wait() -> None:
        with concurrency(name):
            inside.set()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: len(open_keeper().wakeups) == 1)
    change(name)
    assert inside.wait(acquisitions.MAX_POLL_SECONDS / 2)
    thread.join()


def test_many_questions_do_not_hold_renewals_up(wire: Wire, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SHARE", 0.1 / 60)
    ensure_limit(name, 1)
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            read_limit(name)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    with concurrency(name):
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(request.endswith("/renew") for request in wire.seen) >= 5)
        over.set()
    for thread in threads:
        thread.join()


def test_a_destructor_that_calls_from_the_sending_thread_does_not_hang_it(wire: Wire, name: str) -> None:
    ensure_limit(name, 1)
    caught: list[Exception] = []

    def call_back(connection: object) -> None:
        try:
            read_limit(name)
        except StoreError as error:
            caught.append(error)

    begun = time.monotonic()
    keeper = open_keeper()
    keeper.sender.at(0.0, call_back)  # before it starts to wait for the next question
    assert read_limit(name).limit == 1
    wait_until(lambda: caught)
    assert time.monotonic() - begun < 5
