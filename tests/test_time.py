"""Behaviour that depends on time, on a clock moved by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localconc._engine.acquiring.terms import Queued, WaitTerms
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, Call, Mode, Request
from localconc._engine.holding.holdings import Handle
from localconc._engine.operations import limits, reading
from localconc._engine.waiting import threads
from localconc._engine.waiting.mailboxes.mailbox import Mailbox
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from tests.kit.clocks import ManualClock
from tests.kit.engines import kill, silent_engine


class Machine:
    """One process on a machine whose time the test moves."""

    def __init__(self, directory: Path, clock: ManualClock) -> None:
        self.clock = clock
        self.engine = silent_engine(directory, clock)
        self.engine.is_alone = True

    def create(self, name: str, limit: int, decay: float = 0.0, active_slots: int = 0) -> None:
        limits.create(self.engine, name, limit, active=True, active_slots=active_slots, decay=decay)

    def acquire(
        self,
        name: str,
        occupy: int = 1,
        mode: Mode = CONCURRENCY,
        timeout: float | None = 0,
        retries: int | None = None,
    ) -> Handle:
        return threads.acquire(self.engine, Call(Request((name,), occupy, mode), timeout, retries), "test", 0)

    def release(self, handle: Handle) -> None:
        threads.release(self.engine, handle)

    def active(self, name: str) -> int:
        return reading.read(self.engine, name).active_slots

    def admitted(self, name: str, occupy: int = 1, mode: Mode = RATE_LIMIT) -> bool:
        try:
            self.acquire(name, occupy, mode)
        except AcquireConcurrencySlotTimeoutError:
            return False
        return True


@pytest.fixture
def machine(localconc_home_directory: Path) -> Iterator[Machine]:
    made = Machine(localconc_home_directory, ManualClock())
    yield made
    made.engine.close()


def test_a_limit_with_decay_admits_a_burst_and_then_exactly_its_rate(machine: Machine) -> None:
    machine.create("api", 5, decay=2.0)
    assert [machine.admitted("api") for _ in range(6)] == [True] * 5 + [False]
    machine.clock.advance(0.499)
    assert not machine.admitted("api")
    machine.clock.advance(0.001)
    assert machine.admitted("api")
    assert not machine.admitted("api")


def test_fractions_are_never_lost_however_often_one_asks(machine: Machine) -> None:
    machine.create("api", 1, decay=1.0)
    admitted = 0
    for _ in range(1_000):
        admitted += machine.admitted("api")
        machine.clock.advance(0.01)
    assert admitted == 10


def test_whoever_waits_gets_the_full_rate(machine: Machine) -> None:
    machine.create("api", 5, decay=1.0)
    begun = machine.clock.now()
    for _ in range(100):
        machine.acquire("api", mode=RATE_LIMIT, timeout=None)
    assert machine.clock.now() - begun == pytest.approx(95.0)


def test_a_newcomer_finds_those_admitted_who_were_due_before_it_and_no_room_for_itself(machine: Machine) -> None:
    machine.create("api", 1, decay=1.0)
    assert machine.admitted("api")
    acquisitions, queued = machine.engine.acquisitions, machine.engine.queued
    handle = machine.engine.holdings.begin("first", "", 0)
    first = acquisitions.try_acquire(
        Request(("api",), 1, RATE_LIMIT),
        handle,
        WaitTerms(Mailbox(), has_end=True, needs_estimate=False, stops=(), generation=1),
    )
    assert isinstance(first, Queued)
    machine.clock.advance(1.0)
    assert not machine.admitted("api")
    assert not queued.check(first).is_waiting
    assert queued.accept(Request(("api",), 1, RATE_LIMIT), first, handle) is handle
    machine.clock.advance(1.0)
    assert machine.admitted("api")


def test_a_part_of_a_slot_is_displayed_as_a_slot(machine: Machine) -> None:
    machine.create("api", 5, decay=1.0)
    machine.acquire("api", 3, RATE_LIMIT)
    for advance, shown in ((0.0, 3), (0.5, 3), (0.5, 2), (1.9, 1), (0.1, 0), (10.0, 0)):
        machine.clock.advance(advance)
        assert machine.active("api") == shown


def test_slots_drain_while_they_are_held_and_none_is_freed_twice(machine: Machine) -> None:
    machine.create("db", 10, decay=1.0)
    first = machine.acquire("db", 5)
    machine.clock.advance(2.0)
    second = machine.acquire("db", 4)
    assert machine.active("db") == 7
    machine.release(first)  # three of its five have not drained
    assert machine.active("db") == 4
    machine.clock.advance(1.0)
    assert machine.active("db") == 3
    machine.release(second)
    assert machine.active("db") == 0
    assert machine.admitted("db", 10, CONCURRENCY)


def test_leaving_after_everything_drained_gives_nothing_back(machine: Machine) -> None:
    machine.create("db", 3, decay=1.0)
    first = machine.acquire("db", 3)
    machine.clock.advance(3.0)
    second = machine.acquire("db", 3)
    machine.release(first)
    assert machine.active("db") == 3
    machine.release(second)
    assert machine.active("db") == 0


def test_what_was_refused_is_counted_and_forgotten_with_time(machine: Machine) -> None:
    machine.create("db", 1, active_slots=1)
    for _ in range(3):
        assert not machine.admitted("db", mode=CONCURRENCY)
    assert reading.read(machine.engine, "db").denied_slots == 3
    machine.clock.advance(2.0)  # one average occupancy
    assert reading.read(machine.engine, "db").denied_slots == 2
    machine.clock.advance(10.0)
    assert reading.read(machine.engine, "db").denied_slots == 0


def test_retries_come_at_the_estimated_waits_of_prefect(machine: Machine) -> None:
    machine.create("db", 2, active_slots=2)
    begun = machine.clock.now()
    with pytest.raises(ConcurrencySlotAcquisitionError, match="no retries are left"):
        machine.acquire("db", timeout=None, retries=2)
    # One slot of two, at two seconds each: one second. Then one slot was refused, and half of it forgotten.
    assert machine.clock.now() - begun == pytest.approx(1.0 + (1 + 0.5) / 2 * 2.0)
    assert reading.waiters(machine.engine, None) == []


@pytest.mark.parametrize("options", [{"retries": 1, "timeout": None}, {"timeout": 1.0}])
def test_who_comes_too_late_for_its_own_moment_is_admitted_all_the_same(
    machine: Machine, options: dict[str, Any]
) -> None:
    machine.create("api", 1, decay=1.0)
    machine.acquire("api", mode=RATE_LIMIT)
    overslept = machine.clock.pause

    def oversleep(mailbox: Mailbox, until: float | None, watched_fd: int | None) -> None:
        overslept(mailbox, until, watched_fd)
        machine.clock.advance(0.5)  # a busy machine lets it run only now

    machine.clock.pause = oversleep  # type: ignore[method-assign]
    machine.acquire("api", mode=RATE_LIMIT, **options)


def test_a_deadline_is_kept_to_the_moment(machine: Machine) -> None:
    machine.create("db", 1, active_slots=1)
    begun = machine.clock.now()
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        machine.acquire("db", timeout=7.5)
    assert machine.clock.now() - begun == 7.5


@pytest.mark.parametrize("hours", [-100_000, -1, 1, 100_000])
def test_a_jump_of_the_wall_clock_neither_stalls_nor_bursts(machine: Machine, hours: int) -> None:
    machine.create("api", 5, decay=1.0)
    assert [machine.admitted("api") for _ in range(5)] == [True] * 5
    machine.clock.wall_time += hours * 3600
    assert not machine.admitted("api")
    machine.clock.time += 1.0
    assert machine.admitted("api")
    assert not machine.admitted("api")


def test_after_a_reboot_nothing_is_held_and_decay_goes_on_by_the_wall_clock(
    machine: Machine, localconc_home_directory: Path
) -> None:
    machine.create("db", 1)
    machine.create("api", 10, decay=1.0)
    handle = machine.acquire("db")
    machine.acquire("api", 10, RATE_LIMIT)
    kill(machine.engine)
    clock = ManualClock(now=12.0, wall=machine.clock.wall_time + 4.0, boot="second boot")
    after = Machine(localconc_home_directory, clock)
    assert after.active("db") == 0
    assert handle.grant is not None
    assert after.active("api") == 6
    assert reading.holders(after.engine, None) == []
    clock.advance(1.0)
    assert after.active("api") == 5
    after.engine.close()


@pytest.mark.parametrize("identity", ["", "that of each boot of this board"])
def test_where_no_identity_tells_of_a_reboot_the_clocks_do(
    identity: str, machine: Machine, localconc_home_directory: Path
) -> None:
    machine.clock.boot = identity
    machine.create("db", 1)
    machine.create("api", 10, decay=1.0)
    machine.acquire("db")
    machine.acquire("api", 10, RATE_LIMIT)
    kill(machine.engine)
    after = Machine(localconc_home_directory, ManualClock(now=12.0, wall=machine.clock.wall_time + 4.0, boot=identity))
    assert after.active("api") == 6
    assert after.admitted("db", mode=CONCURRENCY)
    after.engine.close()


def test_a_container_with_a_boot_identity_of_its_own_frees_nothing_that_a_living_process_holds(
    machine: Machine, localconc_home_directory: Path
) -> None:
    machine.create("db", 1)
    handle = machine.acquire("db")
    machine.clock.boot = "of the container"
    beside = Machine(localconc_home_directory, machine.clock)
    assert beside.active("db") == 1
    assert not beside.admitted("db", mode=CONCURRENCY)
    machine.release(handle)
    assert beside.admitted("db", mode=CONCURRENCY)
    beside.engine.close()


@pytest.mark.parametrize("wall_step", [-1e9, 1e9])
def test_a_wrong_wall_clock_over_a_reboot_costs_at_most_one_full_limit(
    machine: Machine, localconc_home_directory: Path, wall_step: float
) -> None:
    machine.create("api", 10, decay=1.0)
    machine.acquire("api", 10, RATE_LIMIT)
    kill(machine.engine)
    clock = ManualClock(now=5.0, wall=machine.clock.wall_time + wall_step, boot="second boot")
    after = Machine(localconc_home_directory, clock)
    assert after.active("api") == (10 if wall_step < 0 else 0)
    clock.advance(10.0)
    assert after.active("api") == 0
    after.engine.close()


def test_the_average_follows_how_long_slots_were_held(machine: Machine) -> None:
    machine.create("db", 5)
    occupancy = machine.acquire("db", 2)
    machine.clock.advance(8.0)
    machine.release(occupancy)
    assert reading.read(machine.engine, "db").avg_slot_occupancy_seconds == pytest.approx(2.0 + (4.0 - 2.0) / 10)


def test_a_new_decay_keeps_what_is_occupied(machine: Machine) -> None:
    machine.create("api", 10, decay=1.0)
    machine.acquire("api", 8, RATE_LIMIT)
    machine.clock.advance(2.0)
    limits.update(machine.engine, "api", name=None, limit=None, active=None, active_slots=None, decay=4.0)
    assert machine.active("api") == 6
    machine.clock.advance(1.0)
    assert machine.active("api") == 2


def test_retries_of_a_limit_that_is_known_already_wait_as_long(machine: Machine) -> None:
    machine.create("db", 2)
    machine.release(machine.acquire("db"))  # from now on, one statement asks for it
    handle = machine.acquire("db", 2)
    begun = machine.clock.now()
    with pytest.raises(ConcurrencySlotAcquisitionError, match="no retries are left"):
        machine.acquire("db", timeout=None, retries=1)
    assert machine.clock.now() - begun > 0.5
    machine.release(handle)


def test_the_first_waiter_of_a_paused_limit_that_is_known_already_sets_its_alarm(machine: Machine) -> None:
    machine.create("db", 1)
    machine.release(machine.acquire("db"))  # from now on, one statement asks for it
    limits.pause(machine.engine, "db", 30.0)
    begun = machine.clock.now()
    machine.acquire("db", timeout=None)
    assert machine.clock.now() - begun == 30.0
