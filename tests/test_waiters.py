"""What becomes of a queued request between its grant and the moment at which its process accepts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from localconc._engine.acquiring.acquisitions import HANDED_OVER, NOT_RELEASED
from localconc._engine.acquiring.terms import Deadlocked, Queued, WaitTerms
from localconc._engine.core.calls import Request
from localconc._engine.core.errors import Busy
from localconc._engine.engine import Engine
from localconc._engine.holding.holdings import Handle
from localconc._engine.liveness import reaper
from localconc._engine.operations import history, limits, reading
from localconc._engine.queue import cleanup
from localconc._engine.store.database import Database
from localconc._engine.waiting.mailboxes.mailbox import Mailbox
from localconc.errors import ConcurrencySlotAcquisitionError, StoreError
from tests.kit.clocks import ManualClock
from tests.kit.engines import silent_engine
from tests.kit.invariants import check_store
from tests.kit.strikes import struck


class Process:
    """An engine with one thing that it asked for."""

    def __init__(self, directory: Path, clock: ManualClock) -> None:
        self.directory = directory
        self.engine: Engine = silent_engine(directory, clock)
        self.mailbox = Mailbox("somewhere")
        self.handles: list[Handle] = []  # one that is dropped is released

    def ask(self, *names: str, slots: int = 1, **fields: Any) -> Handle:
        """Acquire, or queue."""
        return self._ask(
            0, WaitTerms(self.mailbox, has_end=True, needs_estimate=False, stops=(), generation=1), names, slots, fields
        )

    def ask_inside(self, *names: str) -> Handle:
        """Acquire, or queue without an end, in a thread that holds what it has acquired like this before."""
        return self._ask(
            1, WaitTerms(self.mailbox, has_end=False, needs_estimate=False, stops=(1,), generation=1), names, 1, {}
        )

    def ask_without_end(self, *names: str) -> Handle:
        """Acquire, or queue without an end, in a thread that holds nothing."""
        return self._ask(
            2, WaitTerms(self.mailbox, has_end=False, needs_estimate=False, stops=(), generation=1), names, 1, {}
        )

    def _ask(
        self, context: int, terms: WaitTerms, names: tuple[str, ...], slots: int, fields: dict[str, Any]
    ) -> Handle:
        self.request = Request(names, slots, **fields)
        self.handle = self.engine.holdings.begin("thread", self.request.label, context)
        self.handles.append(self.handle)
        outcome = self.engine.acquisitions.try_acquire(self.request, self.handle, terms)
        self.outcome = outcome
        if isinstance(outcome, Queued):
            self.queued = outcome
        return self.handle

    def accept(self) -> Handle | Queued | Deadlocked:
        outcome = self.engine.queued.accept(self.request, self.queued, self.handle)
        if isinstance(outcome, Queued):
            self.queued = outcome
        return outcome

    def release(self) -> None:
        self.engine.acquisitions.release(self.handle)

    def held(self, name: str) -> int:
        return reading.read(self.engine, name).active_slots


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def processes(localconc_home_directory: Path, clock: ManualClock) -> Iterator[list[Process]]:
    """Three processes on one home, and the limits db (1), api (1) and rate (3, decay 0.1)."""
    started = [Process(localconc_home_directory, clock) for _ in range(3)]
    limits.create(started[0].engine, "db", 1, active=True, active_slots=0, decay=0.0)
    limits.create(started[0].engine, "api", 1, active=True, active_slots=0, decay=0.0)
    limits.create(started[0].engine, "rate", 3, active=True, active_slots=0, decay=0.1)
    yield started
    for process in started:
        process.engine.holdings.forget_all()
        process.engine.close()


def disable(process: Process, name: str) -> None:
    limits.update(process.engine, name, name=None, limit=None, active=False, active_slots=None, decay=None)


def test_a_fast_admission_tells_the_room_from_before_its_triggers(processes: list[Process]) -> None:
    """SQLite returns what the statement itself saw; `admit_first` reckons with that."""
    holder, waiter, _ = processes
    limits.create(holder.engine, "five", 5, active=True, active_slots=0, decay=0.0)
    holder.ask("five", slots=4)
    waiter.ask("five", slots=3)
    limits.update(holder.engine, "db", name=None, limit=5, active=None, active_slots=None, decay=None)
    rooms = []

    def admit(txn: Any) -> None:
        row = txn.ledger.limit_named("five")
        txn.release(row.id, holder.engine.membership.owner_id, holder.handle.serial)
        admitted = txn.ledger.admit_first(row.id, txn.wall, txn.now)
        rooms.append(admitted[0])

    holder.engine.store.transact(admit)
    assert rooms == [2]
    assert waiter.accept() is waiter.handle
    assert waiter.held("five") == 3


def test_a_process_that_ends_with_a_grant_that_no_thread_picked_up_gives_it_back(processes: list[Process]) -> None:
    holder, ending, waiter = processes
    holder.ask("db")
    ending.ask("db")
    waiter.ask("db")
    holder.release()
    ending.engine.close()
    assert waiter.accept() is waiter.handle
    check_store(waiter.directory)


def test_a_process_that_ends_with_two_waiters_admits_neither_of_them(processes: list[Process]) -> None:
    holder, ending, _ = processes
    holder.ask("db")
    ending.ask("db")
    ending.ask("db")
    holder.release()
    ending.engine.close()
    check_store(holder.directory)
    assert holder.held("db") == 0


def test_an_interrupt_between_the_queueing_and_the_record_of_it_leaves_no_place_in_the_queue(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, waiter, _ = processes
    waiter.ask("db")
    waiter.release()  # it knows the limit now
    holder.ask("db")

    def do_and_strike(do: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*arguments: Any) -> Any:
            do(*arguments)
            raise KeyboardInterrupt

        return struck

    database = waiter.engine.store.database
    for names, queues in ((("db",), "execute_either_fast"), (("db", "api"), "transact")):
        with monkeypatch.context() as patched:
            patched.setattr(database, queues, do_and_strike(getattr(database, queues)))
            with pytest.raises(KeyboardInterrupt):
                waiter.ask(*names)
        assert len(reading.waiters(holder.engine, None)) == 1
        waiter.engine.holdings.undo(waiter.handle)
        assert reading.waiters(holder.engine, None) == []


def test_an_interrupt_while_a_grant_of_other_limits_is_accepted_leaves_no_slot(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, waiter, _ = processes
    holder.ask("db")
    waiter.ask("db", "new", create_if_missing=False)
    limits.create(holder.engine, "new", 1, active=True, active_slots=0, decay=0.0)
    holder.release()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(waiter.engine.holdings, "hold", interrupted)
        with pytest.raises(KeyboardInterrupt):
            waiter.accept()
    waiter.engine.holdings.undo(waiter.handle)
    assert waiter.held("new") == 0
    assert waiter.held("db") == 0


@pytest.mark.parametrize("how", ["reset", "deleted"])
def test_a_grant_that_an_operator_forgot_before_it_was_picked_up_is_still_a_grant(
    processes: list[Process], how: str
) -> None:
    holder, waiter, operator = processes
    holder.ask("db")
    waiter.ask("db")
    holder.release()
    if how == "reset":
        limits.reset(operator.engine, "db")
    else:
        limits.delete(operator.engine, "db")
    assert waiter.accept() is waiter.handle
    waiter.release()
    check_store(waiter.directory)


# ---- passed over ----------------------------------------------------------------------------------------------------


@pytest.fixture
def everybody_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process but the one that looks seems to be stopped."""
    monkeypatch.setattr(reaper, "is_stopped", lambda pid: True)


def pass_over(process: Process, name: str) -> bool:
    row = process.engine.store.read(lambda ledger: ledger.limit_named(name))
    assert row is not None
    return process.engine.reaper.pass_over_stopped([row.id])


@pytest.mark.usefixtures("everybody_stopped")
def test_a_stopped_waiter_is_passed_over_after_a_second_and_is_first_again(
    processes: list[Process], clock: ManualClock
) -> None:
    holder, stopped, behind = processes
    holder.ask("db")
    stopped.ask("db")
    behind.ask("db")
    holder.release()
    clock.advance(0.9)
    assert not pass_over(behind, "db")
    clock.advance(0.2)
    assert pass_over(behind, "db")
    assert behind.accept() is behind.handle
    holder.ask("db")
    stopped.queued = stopped.accept()  # type: ignore[assignment]
    assert isinstance(stopped.queued, Queued)
    assert [waiter.position for waiter in reading.waiters(behind.engine, "db")] == [1, 2]
    behind.release()
    assert stopped.accept() is stopped.handle
    stopped.release()
    assert holder.accept() is holder.handle
    check_store(holder.directory)


@pytest.mark.usefixtures("everybody_stopped")
def test_a_waiter_that_was_passed_over_goes_on_without_a_limit_that_was_disabled_meanwhile(
    processes: list[Process], clock: ManualClock
) -> None:
    holder, stopped, behind = processes
    holder.ask("db")
    stopped.ask("db")
    behind.ask("db")
    holder.release()
    clock.advance(1.1)
    assert pass_over(behind, "db")
    disable(behind, "db")
    assert stopped.accept() is stopped.handle
    check_store(holder.directory)


@pytest.mark.usefixtures("everybody_stopped")
def test_what_is_taken_back_from_a_stopped_process_is_not_freed_twice(
    processes: list[Process], clock: ManualClock
) -> None:
    stopped, second, third = processes
    limits.update(third.engine, "rate", name=None, limit=None, active=None, active_slots=3, decay=None)
    for process in processes:
        process.ask("rate")
    clock.advance(30.0)
    third.engine.queued.admit_overdue([ref.limit_id for ref in stopped.queued.refs])
    assert second.accept() is second.handle
    assert third.accept() is third.handle
    clock.advance(2.0)
    assert pass_over(third, "rate")
    clock.advance(3.0)
    assert occupied(third, clock) == pytest.approx(1.5)
    second.release()  # half of its slot has drained, the other half comes back
    assert occupied(third, clock) == pytest.approx(1.0)


def occupied(process: Process, clock: ManualClock) -> float:
    row = process.engine.store.read(lambda ledger: ledger.limit_named("rate"))
    assert row is not None
    return (row.empty_at - clock.now()) * row.decay


@pytest.mark.usefixtures("everybody_stopped")
def test_a_process_that_is_stopped_twice_is_passed_over_twice(processes: list[Process], clock: ManualClock) -> None:
    holder, stopped, behind = processes
    holder.ask("db")
    stopped.ask("db")
    behind.ask("db")
    holder.release()
    clock.advance(1.1)
    assert pass_over(behind, "db")
    assert behind.accept() is behind.handle
    assert isinstance(stopped.accept(), Queued)
    behind.release()
    clock.advance(1.1)
    assert pass_over(behind, "db")
    assert behind.held("db") == 0


@pytest.mark.usefixtures("everybody_stopped")
def test_what_a_stopped_process_has_picked_up_is_not_taken_from_it(
    processes: list[Process], clock: ManualClock
) -> None:
    holder, stopped, behind = processes
    holder.ask("db")
    stopped.ask("db")
    behind.ask("db")
    holder.release()
    assert stopped.accept() is stopped.handle
    clock.advance(60.0)
    assert not pass_over(behind, "db")
    assert behind.held("db") == 1


@pytest.mark.usefixtures("everybody_stopped")
def test_a_stopped_process_that_goes_on_closes_a_circle_that_had_no_place_for_it(
    processes: list[Process], clock: ManualClock
) -> None:
    holder, stopped, behind = processes
    holder.ask("db")
    kept = stopped.ask_inside("api")
    stopped.ask_inside("db")
    behind.ask_inside("db")
    holder.release()
    clock.advance(1.1)
    assert pass_over(behind, "db")
    assert behind.accept() is behind.handle
    behind.ask_inside("api")  # nobody waits for `db` at this moment
    closed = stopped.accept()
    assert isinstance(closed, Deadlocked)
    assert "'api'" in closed.text
    assert "'db'" in closed.text
    stopped.engine.holdings.undo(stopped.handle)
    stopped.engine.acquisitions.release(kept)
    assert behind.accept() is behind.handle
    check_store(holder.directory)


@pytest.mark.usefixtures("everybody_stopped")
def test_a_stopped_process_that_goes_on_is_not_in_the_way_of_those_it_waits_for(
    processes: list[Process], clock: ManualClock
) -> None:
    """At its old place it would wait for slots of a caller that waits behind it."""
    holder, stopped, nested = processes
    holder.ask("db")
    stopped.ask_without_end("db", "api")
    nested.ask_inside("db")
    holder.release()
    clock.advance(1.1)
    assert pass_over(nested, "db")
    assert nested.accept() is nested.handle
    holder.ask("api")
    inner = nested.handle
    nested.ask_inside("api")
    assert isinstance(stopped.accept(), Queued)
    holder.release()
    assert nested.accept() is nested.handle
    nested.release()
    nested.engine.acquisitions.release(inner)
    assert stopped.accept() is stopped.handle
    assert (stopped.held("db"), stopped.held("api")) == (1, 1)
    stopped.release()
    assert reading.waiters(holder.engine, None) == []
    check_store(holder.directory)


@pytest.mark.usefixtures("everybody_stopped")
def test_a_stopped_process_that_goes_on_waits_without_an_end_again(
    processes: list[Process], clock: ManualClock
) -> None:
    """So another request that closes a circle with it is refused."""
    holder, stopped, behind = processes
    holder.ask("db")
    stopped.ask_inside("api")
    stopped.ask_inside("db")
    behind.ask_inside("db")
    holder.release()
    clock.advance(1.1)
    assert pass_over(behind, "db")
    assert behind.accept() is behind.handle
    assert isinstance(stopped.accept(), Queued)
    behind.ask_inside("api")
    assert isinstance(behind.outcome, Deadlocked)


@pytest.mark.usefixtures("everybody_stopped")
def test_a_stopped_process_asks_for_all_its_slots_again_though_those_it_was_granted_have_drained(
    processes: list[Process], clock: ManualClock
) -> None:
    holder, stopped, behind = processes
    limits.update(holder.engine, "rate", name=None, limit=None, active=None, active_slots=3, decay=None)
    stopped.ask("rate")
    clock.advance(10.0)
    holder.engine.queued.admit_overdue([ref.limit_id for ref in stopped.queued.refs])
    clock.advance(60.0)
    limits.update(holder.engine, "rate", name=None, limit=None, active=None, active_slots=None, decay=0.0)
    assert pass_over(behind, "rate")
    holder.ask("rate", slots=3)
    assert isinstance(stopped.accept(), Queued)
    holder.release()
    assert stopped.accept() is stopped.handle
    assert stopped.held("rate") == 1


# ---- another thread learns of a change meanwhile ---------------------------------------------------------------------


def test_a_request_that_a_lowered_limit_can_never_admit_is_refused_although_it_looked_simple_before(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process learns of the change between the look at the request and the statement that would queue it."""
    process, operator, _ = processes
    limits.update(operator.engine, "db", limit=5)
    process.ask("db")
    process.release()
    execute = process.engine.store.database.execute_either_fast

    def execute_after_a_change(*arguments: Any) -> Any:
        monkeypatch.undo()
        limits.update(operator.engine, "db", limit=2)
        process.engine.acquisitions.try_acquire(
            Request(("db",), 1), process.engine.holdings.begin("another call", "", 0), None
        )
        return execute(*arguments)

    monkeypatch.setattr(process.engine.store.database, "execute_either_fast", execute_after_a_change)
    with pytest.raises(ConcurrencySlotAcquisitionError, match="occupy=3"):
        process.ask("db", slots=3)
    assert reading.waiters(process.engine, "db") == []


def test_a_wakeup_from_a_store_that_was_replaced_proves_no_grant(processes: list[Process], clock: ManualClock) -> None:
    holder, waiter, _ = processes
    holder.ask("db")
    waiter.ask("db")
    wakeup = (waiter.handle.serial, waiter.queued.secret, clock.wall(), clock.now())
    waiter.engine.membership.generation += 1
    assert waiter.engine.acquisitions.accept_wakeup(waiter.request, waiter.queued, waiter.handle, wakeup) is None
    waiter.engine.membership.generation -= 1
    assert waiter.engine.acquisitions.accept_wakeup(waiter.request, waiter.queued, waiter.handle, wakeup)


def test_an_undo_leaves_the_request_of_another_thread_that_has_the_same_number_in_a_new_store(
    processes: list[Process],
) -> None:
    holder, waiter, _ = processes
    holder.ask("db")
    waiter.ask("db")
    membership, ticket = waiter.engine.membership, waiter.queued.ticket
    waiter.engine.store.transact(lambda txn: cleanup.undo(txn, membership.owner_id, 4711, (), ticket))
    assert [each.position for each in reading.waiters(waiter.engine, "db")] == [1]
    assert reading.read(waiter.engine, "db").denied_slots == 1


# ---- slots that a release hands over ---------------------------------------------------------------------------------


def test_a_release_and_the_admission_of_the_next_waiter_are_one_statement(
    processes: list[Process], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, waiter, second = processes
    holder.ask("db")
    waiter.ask("db")
    second.ask("db")
    clock.advance(3.0)
    with monkeypatch.context() as patched:
        patched.setattr(holder.engine.store.database, "transact", pytest.fail)
        assert holder.engine.acquisitions.release_fast(holder.handle) == HANDED_OVER
    assert waiter.accept() is waiter.handle
    assert isinstance(second.accept(), Queued)
    released, held = history.read(holder.engine, "db", None, None)
    assert (released.pid, released.waited_seconds) == (held.pid, 0.0)
    assert held.waited_seconds == pytest.approx(3.0)
    assert released.released_at == held.acquired_at
    check_store(holder.directory)


def test_a_release_that_makes_room_for_more_than_one_waiter_goes_by_the_rules(
    processes: list[Process], clock: ManualClock
) -> None:
    holder, *waiters = processes
    limits.update(holder.engine, "db", limit=3)
    holder.ask("db", slots=3)
    for waiter in waiters:
        waiter.ask("db")
    clock.advance(1.0)
    assert holder.engine.acquisitions.release_fast(holder.handle) == NOT_RELEASED
    assert holder.held("db") == 3
    holder.release()
    assert [waiter.accept() for waiter in waiters] == [waiter.handle for waiter in waiters]
    assert holder.held("db") == 2
    check_store(holder.directory)


def test_slots_that_an_operator_has_taken_back_are_handed_over_to_nobody(
    processes: list[Process], clock: ManualClock
) -> None:
    holder, waiter, second = processes
    holder.ask("db")
    waiter.ask("db")
    second.ask("db")
    clock.advance(1.0)
    limits.update(holder.engine, "db", active_slots=0)  # the first waiter is admitted now
    holder.release()
    assert waiter.accept() is waiter.handle
    assert isinstance(second.accept(), Queued)
    assert holder.held("db") == 1
    check_store(holder.directory)


def test_nothing_is_handed_over_while_a_limit_is_paused(processes: list[Process], clock: ManualClock) -> None:
    holder, waiter, _ = processes
    holder.ask("db")
    waiter.ask("db")
    limits.pause(holder.engine, "db", 10.0)
    clock.advance(1.0)
    holder.release()
    assert isinstance(waiter.accept(), Queued)
    assert holder.held("db") == 0
    check_store(holder.directory)


def test_a_waiter_gets_nothing_of_a_release_that_makes_too_little_room_for_it(
    processes: list[Process], clock: ManualClock
) -> None:
    first, second, waiter = processes
    limits.update(first.engine, "db", limit=2)
    first.ask("db")
    second.ask("db")
    waiter.ask("db", slots=2)
    clock.advance(1.0)
    first.release()
    assert isinstance(waiter.accept(), Queued)
    assert first.held("db") == 1
    second.release()
    assert waiter.accept() is waiter.handle
    assert first.held("db") == 2
    check_store(first.directory)


@pytest.mark.parametrize("strikes_at", ["the queueing", "the hand-over"])
@pytest.mark.parametrize("does", ["acquires and releases another limit", "forks"])
def test_a_handler_that_uses_limits_at_any_moment_of_a_fast_statement_harms_no_slot(
    processes: list[Process], clock: ManualClock, strikes_at: str, does: str
) -> None:
    holder, waiter, second = processes
    struck_process = waiter if strikes_at == "the queueing" else holder
    waiter.ask("db")
    waiter.release()  # it knows the limit now, so the fast statements serve it
    was_struck = True
    instruction = 0
    while was_struck:
        holder.ask("db")
        if strikes_at == "the hand-over":
            waiter.ask("db")
        clock.advance(1.0)

        def handle_signal() -> None:
            if does == "forks":
                struck_process.engine.store.database.close()  # as the hook before a fork does
                return
            with suppress(Busy, StoreError):
                second_handle = struck_process.engine.holdings.begin("handler", "", 0)
                struck_process.handles.append(second_handle)
                struck_process.engine.acquisitions.try_acquire(Request(("api",)), second_handle, None)
                struck_process.engine.acquisitions.release(second_handle)

        with struck(Database.execute_either_fast, instruction, handle_signal) as strike:
            if strikes_at == "the queueing":
                _until_not_busy(lambda: waiter.ask("db"))
            else:
                _until_not_busy(holder.release)
        was_struck, instruction = strike.has_come, instruction + 1
        if strikes_at == "the queueing":
            _until_not_busy(holder.release)
        assert _until_not_busy(waiter.accept) is waiter.handle
        assert [each.thread for each in reading.holders(second.engine, "db")] == ["thread"]
        assert reading.waiters(second.engine, "db") == []
        _until_not_busy(waiter.release)
        assert second.held("db") == 0
        check_store(second.directory)
    assert instruction > 20


def _until_not_busy(operation: Callable[[], Any]) -> Any:
    for _ in range(3):
        try:
            return operation()
        except Busy:
            continue
    raise AssertionError("the store stays busy")
