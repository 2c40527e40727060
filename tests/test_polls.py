"""The polls of waiters: they find what no wakeup told, and look at nothing while nothing happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from localconc import create_limit, ensure_limit, read_waiters
from localconc._engine import registry
from localconc._engine.acquiring.queued import QueuedRequests
from localconc._engine.engine import Engine
from localconc._engine.store import store as stores
from localconc._engine.store.store import SparedLooks
from localconc._engine.waiting import dispatcher, wait
from localconc._engine.waiting.mailboxes import mailbox
from localconc._engine.waiting.mailboxes.pool import MailboxPool
from localconc._engine.waiting.timing import MAX_POLLERS
from localconc.asyncio import concurrency as concurrency_of_tasks
from localconc.sync import concurrency
from tests.kit.processes import PATIENCE_SECONDS, Worker, crew, wait_until
from tests.kit.systems import needs_sockets, needs_watch
from tests.kit.tasks import until

QUICKLY_SECONDS = 0.01
NEVER_SECONDS = 3_600.0


@pytest.fixture
def holder(localconc_home_directory: object) -> Iterator[Worker]:
    """Another process that holds the only slot of "db"."""
    create_limit("db", 1)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        yield workers[0]


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[str]:
    """The calls of a method from now on, which goes on to do its work."""
    calls: list[str] = []
    method = getattr(owner, name)

    def call(*args: object) -> object:
        calls.append(threading.current_thread().name)
        return method(*args)

    monkeypatch.setattr(owner, name, call)
    return calls


def begin_to_wait(names: list[str], work: Callable[[], None]) -> list[threading.Thread]:
    """Threads that wait for "db", in this order."""
    threads = [threading.Thread(target=work, name=name, daemon=True) for name in names]
    for count, thread in enumerate(threads, len(read_waiters("db")) + 1):
        thread.start()
        wait_until(lambda count=count: len(read_waiters("db")) == count)
    return threads


# ---- what no wakeup told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crowd", "wakeups"), [(0, "impossible"), pytest.param(MAX_POLLERS, "lost", marks=needs_sockets)]
)
def test_a_thread_without_its_wakeup_learns_of_its_grant_from_another_thread_that_polls(
    crowd: int, wakeups: str, holder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_one_polls(*_: object) -> float:
        return QUICKLY_SECONDS if threading.current_thread().name == "polls" else NEVER_SECONDS

    if wakeups == "impossible":
        monkeypatch.setattr(MailboxPool, "_with_socket", lambda self, owner: None)
    else:
        monkeypatch.setattr(mailbox, "from_bytes", lambda datagram: None)
    monkeypatch.setattr(wait, "poll_seconds", only_one_polls)
    entered: list[str] = []

    def hold_one() -> None:
        with concurrency("db"):
            entered.append(threading.current_thread().name)

    names = ["sleeps", *(f"in the crowd {number}" for number in range(crowd)), "polls"]
    threads = begin_to_wait(names, hold_one)

    holder.finish()

    wait_until(lambda: entered == names)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


# ---- while nothing happens -------------------------------------------------------------------------------------------


@needs_watch
@pytest.mark.parametrize("waiting", [2, MAX_POLLERS + 2])
def test_threads_that_wait_look_at_the_store_again_only_after_a_commit(
    waiting: int, holder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_SPARED_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(wait, "poll_seconds", lambda *_: QUICKLY_SECONDS)
    done = threading.Event()

    def hold_one() -> None:
        with concurrency("db", timeout_seconds=PATIENCE_SECONDS):
            assert done.wait(PATIENCE_SECONDS)

    threads = begin_to_wait([str(number) for number in range(waiting)], hold_one)
    looks, polls = counted(monkeypatch, QueuedRequests, "check"), counted(monkeypatch, SparedLooks, "may_spare")

    def looks_during_polls(count: int) -> int:
        """How often all but the first in line look while they poll: that one looks for what no watch tells."""
        before, until_then = sum(name != "0" for name in looks), len(polls) + count * waiting
        wait_until(lambda: len(polls) > until_then)
        return sum(name != "0" for name in looks) - before

    looks_during_polls(20)
    assert looks_during_polls(50) == 0
    ensure_limit("another", 1)
    assert looks_during_polls(20) > 0
    done.set()
    holder.finish()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


@needs_watch
def test_a_loop_that_waits_looks_at_the_store_again_only_after_a_commit(
    holder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_SPARED_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(dispatcher, "poll_seconds", lambda *_: QUICKLY_SECONDS)

    async def hold_one() -> None:
        async with concurrency_of_tasks("db"):
            pass

    async def run() -> None:
        tasks = [asyncio.create_task(hold_one()) for _ in range(3)]
        await until(lambda: len(read_waiters("db")) == 3)
        looks, polls = counted(monkeypatch, Engine, "stand_in"), counted(monkeypatch, SparedLooks, "may_spare")

        async def looks_during_polls(count: int) -> int:
            before, until_then = len(looks), len(polls) + count
            await until(lambda: len(polls) > until_then)
            return len(looks) - before

        await looks_during_polls(20)
        assert await looks_during_polls(50) == 0
        ensure_limit("another", 1)
        assert await looks_during_polls(20) > 0
        holder.leave()
        await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize("change", ["commit", "time"])
def test_a_look_is_spared_until_a_commit_or_for_ten_seconds(change: str, localconc_home_directory: object) -> None:
    ensure_limit("db", 1)
    store = registry.current().store
    spared = SparedLooks(store)

    assert not spared.may_spare(100.0)
    spared.looked(100.0, store.database.state())

    assert spared.may_spare(109.0)
    if change == "commit":
        ensure_limit("db", 2)
    assert not spared.may_spare(109.0 if change == "commit" else 110.0)
    spared.looked(110.0, None)
    assert not spared.may_spare(110.0)
