"""The polls of waiters: they find what no wakeup told, and look at nothing while nothing happens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from localconc import create_limit, ensure_limit, read_waiters
from localconc._engine import engine as engines
from localconc._engine import registry
from localconc._engine.acquiring.queued import QueuedRequests
from localconc._engine.core.clock import SystemClock
from localconc._engine.core.errors import Busy
from localconc._engine.engine import Engine
from localconc._engine.store import store as stores
from localconc._engine.store.store import SparedLooks
from localconc._engine.waiting import dispatcher, timing, wait
from localconc._engine.waiting.mailboxes import mailbox
from localconc._engine.waiting.mailboxes.notifier import Notifier
from localconc._engine.waiting.mailboxes.pool import MailboxPool
from localconc._engine.waiting.pauses import retry_while_busy
from localconc._engine.waiting.timing import MAX_POLLERS
from localconc.asyncio import concurrency as concurrency_of_tasks
from localconc.errors import AcquireConcurrencySlotTimeoutError
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


class Frozen(SystemClock):
    """A clock that stands still until a test moves it."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def now(self) -> float:  # type: ignore[override]
        return self.moment


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


@needs_sockets
def test_who_is_left_of_a_crowd_polls_as_often_as_somebody_alone(
    holder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def polls_unless_in_crowd(_: bool, __: bool, ___: int, waiting: int) -> float:
        return NEVER_SECONDS if waiting > MAX_POLLERS else QUICKLY_SECONDS

    monkeypatch.setattr(wait, "poll_seconds", polls_unless_in_crowd)
    monkeypatch.setattr(wait, "random", lambda: 1.0)

    def give_up_after_a_while() -> None:
        with suppress(AcquireConcurrencySlotTimeoutError):
            concurrency("db", timeout_seconds=3.0).__enter__()

    crowd = begin_to_wait([f"leaves {number}" for number in range(MAX_POLLERS)], give_up_after_a_while)
    (last,) = begin_to_wait(["last"], lambda: concurrency("db").__enter__().release())
    for thread in crowd:
        thread.join(PATIENCE_SECONDS)
    monkeypatch.setattr(Notifier, "send", lambda self, wakeups: None)

    ensure_limit("db", 2)

    last.join(PATIENCE_SECONDS)
    assert not last.is_alive()


@needs_watch
def test_a_process_far_behind_looks_briefly_until_the_others_have_looked_for_long_enough(
    holder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "FAR_BEHIND", 1)
    monkeypatch.setattr(wait, "poll_seconds", lambda *_: QUICKLY_SECONDS)
    monkeypatch.setattr(mailbox, "from_bytes", lambda datagram: None)
    others_look_for_seconds = 1.0
    monkeypatch.setattr(wait, "MAX_SPARED_SECONDS", others_look_for_seconds)
    with crew() as workers:
        workers.append(Worker("db"))
        wait_until(lambda: len(read_waiters("db")) == 1)
        brief, full = (
            counted(monkeypatch, QueuedRequests, "owners_in_front"),
            counted(monkeypatch, QueuedRequests, "check"),
        )
        begun = time.monotonic()
        (thread,) = begin_to_wait(["behind"], lambda: concurrency("db").__enter__().release())
        wait_until(lambda: len(full) == 1)  # as it begins to watch

        for count in range(1, 4):  # a commit, and then a look
            ensure_limit("another", count)
            wait_until(lambda count=count: len(brief) >= count)
        assert len(full) == 1 or time.monotonic() > begun + others_look_for_seconds
        wait_until(lambda: len(full) > 1)

        holder.finish()
        workers[0].wait_inside()
        workers[0].finish()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_a_thread_far_behind_that_no_process_can_tell_finds_its_grant_itself(
    holder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "FAR_BEHIND", 1)
    monkeypatch.setattr(timing, "FAR_BEHIND_FACTOR", 10_000)
    monkeypatch.setattr(MailboxPool, "_with_socket", lambda self, owner: None)
    with crew() as workers:
        workers.append(Worker("db"))
        wait_until(lambda: len(read_waiters("db")) == 1)
        (thread,) = begin_to_wait(["behind"], lambda: concurrency("db").__enter__().release())
        time.sleep(2 * timing.WATCH_AFTER_SECONDS)  # until it polls

        holder.finish()
        workers[0].wait_inside()
        workers[0].finish()

        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@pytest.mark.parametrize("sees_deaths", [True, False])
@pytest.mark.parametrize("gets_wakeups", [True, False])
@pytest.mark.parametrize("owners_ahead", [0, timing.FAR_BEHIND - 1, timing.FAR_BEHIND, 64])
def test_five_hundred_threads_poll_less_often_than_one_wherever_they_stand(
    gets_wakeups: bool, sees_deaths: bool, owners_ahead: int
) -> None:
    one, many = [timing.poll_seconds(gets_wakeups, sees_deaths, owners_ahead, threads) for threads in (1, 500)]

    assert one <= many
    assert 500 / many <= 625  # polls a second
    assert gets_wakeups or many <= timing.SLOW_POLL_SECONDS


@pytest.mark.parametrize(("retries", "seconds"), [(1, 0.01), (300, 0.3)])
def test_the_more_threads_retry_on_a_store_that_is_held_up_the_longer_each_pauses(
    retries: int, seconds: float, localconc_home_directory: object
) -> None:
    def refuse() -> None:
        raise Busy

    ensure_limit("db", 1)
    engine = registry.current()
    others = {object() for _ in range(retries - 1)}
    engine.retries |= others
    monotonic = engine.clock.now()
    engine.clock = Frozen(monotonic)
    pauses = retry_while_busy(engine, refuse, None)

    found = []
    for _ in range(100):
        found.append(next(pauses).seconds)
        engine.clock.moment += 1.0
    pauses.close()

    assert max(found) == pytest.approx(seconds, rel=0.3)
    assert engine.retries == others


# ---- while nothing happens -------------------------------------------------------------------------------------------


@needs_watch
@pytest.mark.parametrize("waiting", [2, MAX_POLLERS + 2])
def test_threads_that_wait_look_at_the_store_again_only_after_a_commit(
    waiting: int, holder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "MAX_SPARED_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(engines, "MAX_SPARED_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(engines, "OWN_SPARED_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(wait, "poll_seconds", lambda *_: QUICKLY_SECONDS)
    done = threading.Event()

    def hold_one() -> None:
        with concurrency("db", timeout_seconds=PATIENCE_SECONDS):
            assert done.wait(PATIENCE_SECONDS)

    names = [str(number) for number in range(waiting)]
    threads = begin_to_wait(names, hold_one)
    looks, polls = counted(monkeypatch, QueuedRequests, "check"), counted(monkeypatch, SparedLooks, "may_spare")

    # The first in line looks for what no watch tells; in a crowd, it does so for all.
    counts = set(names) if waiting > MAX_POLLERS else set(names[1:])

    def looks_during_polls(count: int) -> int:
        before, until_then = sum(map(looks.count, counts)), len(polls) + count * waiting
        wait_until(lambda: len(polls) > until_then)
        return sum(map(looks.count, counts)) - before

    wait_until(lambda: min(map(polls.count, names)) >= 3)  # a thread looks when it polls for the first time
    assert looks_during_polls(50) == 0
    before = sum(map(looks.count, counts))
    ensure_limit("another", 1)
    wait_until(lambda: sum(map(looks.count, counts)) > before)
    done.set()
    holder.finish()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


@needs_watch
def test_a_loop_that_waits_looks_at_the_store_again_only_after_a_commit(
    holder: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "MAX_SPARED_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(engines, "MAX_SPARED_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(engines, "OWN_SPARED_SECONDS", NEVER_SECONDS)
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
        before = len(looks)
        ensure_limit("another", 1)
        await until(lambda: len(looks) > before)
        holder.leave()
        await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize("change", ["commit", "time"])
def test_a_look_is_spared_until_a_commit_or_for_ten_seconds(change: str, localconc_home_directory: object) -> None:
    ensure_limit("db", 1)
    store = registry.current().store
    spared = SparedLooks(store)

    assert not spared.may_spare(100.0)
    spared.looked(100.0, store.database.state(), stores.MAX_SPARED_SECONDS)

    assert spared.may_spare(109.0)
    if change == "commit":
        ensure_limit("db", 2)
    assert not spared.may_spare(109.0 if change == "commit" else 110.0)
    spared.looked(110.0, store.database.state(), 0.0)
    assert not spared.may_spare(110.0)
