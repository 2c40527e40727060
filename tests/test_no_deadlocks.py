"""What looks like a deadlock, but can go on: nobody is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from localconc import asyncio as for_tasks
from localconc import ensure_limit, pause_limit, read_waiters, update_limit
from localconc._engine.acquiring.terms import Deadlocked, Queued, WaitTerms
from localconc._engine.core.calls import Request
from localconc._engine.engine import Engine
from localconc._engine.holding.holdings import Handle
from localconc._engine.operations import limits as operations
from localconc._engine.waiting.mailboxes.mailbox import Mailbox
from localconc.errors import DeadlockError
from localconc.sync import acquire, concurrency, rate_limit
from localconc.testing import VirtualClock, virtual_clock
from tests.kit.clocks import ManualClock
from tests.kit.engines import silent_engine
from tests.kit.processes import PATIENCE_SECONDS, wait_until

WAYS = ["in real time", "in virtual time"]


@contextmanager
def once_somebody_waits(name: str, act: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread as soon as a request is queued on a limit."""

    def wait_and_act() -> None:
        wait_until(lambda: len(read_waiters(name)) == 1)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


@pytest.fixture(params=WAYS)
def time(request: pytest.FixtureRequest) -> Iterator[VirtualClock | None]:
    """The time in which a test runs: its clock if it is virtual."""
    if request.param == WAYS[0]:
        yield None
    else:
        with virtual_clock() as clock:
            yield clock


@pytest.mark.usefixtures("time")
def test_another_thread_may_release_a_handle() -> None:
    ensure_limit("gpu", 1)
    handle = acquire("gpu")
    with once_somebody_waits("gpu", handle.release), concurrency("gpu"):
        pass


@pytest.mark.usefixtures("time")
def test_a_limit_of_no_slots_may_be_raised() -> None:
    ensure_limit("gpu", 1)
    with concurrency("gpu"):
        update_limit("gpu", limit=0)
        with once_somebody_waits("gpu", lambda: update_limit("gpu", limit=2)), concurrency("gpu"):
            pass


def test_slots_that_decay_come_back_while_they_are_held(time: VirtualClock | None) -> None:
    ensure_limit("api", 1, slot_decay_per_second=50)
    with concurrency("api"), concurrency("api"):
        rate_limit("api")
    if time is not None:
        assert time.elapsed == pytest.approx(0.04)


def test_a_request_with_an_end_leaves_its_place_in_a_circle(time: VirtualClock | None) -> None:
    """It closes the circle itself, or is part of one that another request closes."""
    ensure_limit("left", 1)
    ensure_limit("right", 1)
    both_hold = threading.Barrier(2)

    def take_right_and_give_up() -> None:
        with concurrency("right"):
            both_hold.wait(PATIENCE_SECONDS)
            with pytest.raises(TimeoutError):
                concurrency("left", timeout_seconds=0.2 if time is None else 20).__enter__()

    thread = threading.Thread(target=take_right_and_give_up)
    thread.start()
    with concurrency("left"):
        both_hold.wait(PATIENCE_SECONDS)
        with concurrency("right"):
            pass
    thread.join(PATIENCE_SECONDS)
    assert time is None or time.elapsed == 20


@pytest.mark.usefixtures("time")
def test_a_holder_that_waits_for_something_else_goes_on() -> None:
    """One holds `left` and waits for `right`; the holder of `right` waits for an event, and then leaves."""
    ensure_limit("left", 1)
    ensure_limit("right", 1)
    holds, may_leave = threading.Event(), threading.Event()

    def hold_right() -> None:
        with concurrency("right"):
            holds.set()
            may_leave.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=hold_right)
    thread.start()
    assert holds.wait(PATIENCE_SECONDS)
    with concurrency("left"), once_somebody_waits("right", may_leave.set), concurrency("right"):
        pass
    thread.join(PATIENCE_SECONDS)


@pytest.mark.usefixtures("time")
def test_a_limit_that_was_raised_meanwhile_opens_the_circle() -> None:
    """The waiter holds one of `left`, another thread the other one, and the caller who asks for it all else."""
    ensure_limit("left", 1)
    ensure_limit("right", 1)
    holds_left = threading.Event()

    def take_left_and_right() -> None:
        with concurrency("left"):
            holds_left.set()
            with concurrency("right"):
                pass

    waiter = threading.Thread(target=take_left_and_right)
    with concurrency("right"):
        waiter.start()
        assert holds_left.wait(PATIENCE_SECONDS)
        wait_until(lambda: len(read_waiters("right")) == 1)
        update_limit("left", limit=2)
        other = acquire("left")
        with once_somebody_waits("left", other.release), concurrency("left"):
            pass
    waiter.join(PATIENCE_SECONDS)
    assert not waiter.is_alive()


def test_the_end_of_a_pause_is_waited_for(time: VirtualClock | None) -> None:
    ensure_limit("left", 1)
    ensure_limit("right", 1)
    pause_limit("right", 0.05 if time is None else 50)
    with concurrency("left"), concurrency("right"):
        pass
    assert time is None or time.elapsed == 50


@pytest.mark.usefixtures("time")
def test_but_nobody_waits_for_the_end_of_a_pause_to_go_on_waiting_for_itself() -> None:
    ensure_limit("gpu", 1)
    with concurrency("gpu"):
        pause_limit("gpu", 50)
        with pytest.raises(DeadlockError):
            concurrency("gpu").__enter__()


# ---- who holds what --------------------------------------------------------------------------------------------------


def test_a_thread_does_not_hold_what_an_earlier_thread_left_for_others_to_release() -> None:
    """Python gives the identity of a thread that has ended to a later one."""
    ensure_limit("gpu", 1)
    stack = ExitStack()
    first = threading.Thread(target=lambda: stack.enter_context(concurrency("gpu")))
    first.start()
    ident = first.ident
    first.join(PATIENCE_SECONDS)
    served: list[int | None] = []

    def enter_and_leave() -> None:
        with concurrency("gpu"):
            served.append(threading.get_ident())

    threads = [threading.Thread(target=enter_and_leave) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(read_waiters("gpu")) == sum(thread.is_alive() for thread in threads))
    stack.close()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert len(served) == len(threads)
    if ident not in served:
        pytest.skip("no later thread got the identity of the first one here")


def test_a_task_does_not_hold_what_an_earlier_task_left_for_others_to_release() -> None:
    ensure_limit("gpu", 1)

    async def enter(block: for_tasks.concurrency) -> None:
        await block.__aenter__()

    async def enter_and_leave() -> None:
        async with for_tasks.concurrency("gpu"):
            pass

    async def main() -> bool:
        block = for_tasks.concurrency("gpu")
        first = asyncio.create_task(enter(block))
        await first
        identity = id(first)
        del first
        await asyncio.sleep(0)  # its loop forgets it, too
        tasks = [asyncio.create_task(enter_and_leave()) for _ in range(20)]
        while len(await asyncio.to_thread(read_waiters, "gpu")) < len(tasks):
            assert not any(task.done() for task in tasks)
        await block.__aexit__(None, None, None)
        await asyncio.gather(*tasks)
        return identity in map(id, tasks)

    if not asyncio.run(main()):
        pytest.skip("no later task got the identity of the first one here")


class Process:
    """An engine that stands for a process, whose only thread is the running one."""

    def __init__(self, directory: Path) -> None:
        self.engine: Engine = silent_engine(directory, ManualClock())
        self._terms = WaitTerms(Mailbox("somewhere"), has_end=False, needs_estimate=False, stops=(1,), generation=1)

    def ask(self, name: str) -> Handle | Queued | Deadlocked:
        """Acquire or enqueue, as a thread does that holds something."""
        handle = self.engine.holdings.begin("thread", "", 1)
        outcome = self.engine.acquisitions.try_acquire(Request((name,)), handle, self._terms)
        assert isinstance(outcome, (Handle, Queued, Deadlocked))
        return outcome

    def close(self) -> None:
        self.engine.holdings.forget_all()
        self.engine.close()


def test_what_the_background_of_a_waiting_process_is_about_to_release_is_not_held(
    localconc_home_directory: Path,
) -> None:
    """Its thread has left the block, but the store did not allow the release yet."""
    waiting, asking = Process(localconc_home_directory), Process(localconc_home_directory)
    for name in ("left", "right"):
        operations.create(asking.engine, name, 1, active=True, active_slots=0, decay=0.0)
    left = waiting.ask("left")
    assert isinstance(left, Handle)
    right = asking.ask("right")
    assert isinstance(right, Handle)
    with waiting.engine.store.database.lock:  # so its background can't release anything
        waiting.engine.holdings.release_later(left)
        assert isinstance(waiting.ask("right"), Queued)
        assert isinstance(asking.ask("left"), Queued)
    wait_until(lambda: not waiting.engine.holdings.being_released())
    for process in (waiting, asking):
        process.close()
