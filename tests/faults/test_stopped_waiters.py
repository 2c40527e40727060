"""Whoever is stopped or busy while it waits keeps its place, and holds nobody up for much longer than a second."""

from __future__ import annotations

import time
from pathlib import Path

from localconc import ensure_limit, pause_limit, read_limit, read_waiters, resume_limit
from localconc.sync import rate_limit
from tests.faults.programs import Cast, Puppet, in_line, until
from tests.kit.systems import needs_process_table

#: A stopped waiter holds others up for 1 s; the rest is for a machine that does other things, too.
LATE_SECONDS = 4.0


def _waits(puppet: Puppet, home: Path, names: str | list[str], **options: object) -> None:
    places = in_line(home) + (1 if isinstance(names, str) else len(names))
    puppet.begins_to_enter(names, "waits", **options)
    until(lambda: in_line(home) == places, "it waits")


def test_a_stopped_process_first_in_line_for_two_limits_keeps_nobody_from_one_of_them(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("S", 10)
    ensure_limit("D", 1, slot_decay_per_second=2.0)
    stopped, alive = programs.puppet(), programs.puppet()
    pause_limit("D", 60)  # until it waits: on a busy machine, its slot would have drained
    _waits(stopped, home, ["S", "D"])
    stopped.stop()
    resume_limit("D")

    began = time.monotonic()
    alive.must_enter("S")

    assert time.monotonic() - began < LATE_SECONDS
    newcomer = programs.puppet()
    assert newcomer.enters("S", timeout_seconds=LATE_SECONDS)
    stopped.go_on()
    assert stopped.outcome("waits", 5) == "done"


@needs_process_table
def test_a_stopped_process_first_in_line_keeps_nobody_out_of_a_limit_with_room_though_the_other_is_full(
    programs: Cast, localconc_home_directory: Path
) -> None:
    """Of a process that runs, order counts; of a stopped one nobody knows when it goes on."""
    home = localconc_home_directory
    ensure_limit("S", 1)
    ensure_limit("D", 1, slot_decay_per_second=2.0)
    stopped, alive = programs.puppet(), programs.puppet()
    pause_limit("D", 60)
    _waits(stopped, home, ["S", "D"])
    stopped.stop()
    resume_limit("D")
    _waits(alive, home, "S", timeout_seconds=10)

    assert alive.outcome("waits", LATE_SECONDS + 1) == "done"
    stopped.go_on()
    assert stopped.is_silent_for(0)
    alive.leave("S")
    assert stopped.outcome("waits", 5) == "done"


def test_four_stopped_processes_in_front_of_a_rate_limit_cost_little_more_than_one(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    stopped = [programs.puppet() for _ in range(4)]
    alive = programs.puppet()
    ensure_limit("api", 1, slot_decay_per_second=2.0)
    rate_limit("api")
    pause_limit("api", 60)
    for number, puppet in enumerate((*stopped, alive), 1):
        puppet.do("begin", "waits", "rate_limit", "api")
        until(lambda expected=number: in_line(home) >= expected, "it waits")  # type: ignore[misc]
        if puppet is not alive:
            puppet.stop()
    began = time.monotonic()
    resume_limit("api")

    assert alive.outcome("waits", 10) == "done"
    assert time.monotonic() - began < 5 / 2.0 + LATE_SECONDS - 1


@needs_process_table
def test_a_stopped_waiter_that_was_handed_the_slot_is_passed_over_and_first_again_when_it_goes_on(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("L", 1)
    holder, stopped, second, third = (programs.puppet() for _ in range(4))
    holder.must_enter("L")
    for puppet in (stopped, second, third):
        _waits(puppet, home, "L")
    stopped.stop()

    holder.leave("L")

    assert second.outcome("waits", LATE_SECONDS) == "done"
    assert read_limit("L").active_slots == 1
    assert [waiter.pid for waiter in read_waiters("L")] == [stopped.pid, third.pid]
    stopped.go_on()
    until(lambda: in_line(home) == 2, "it has come back to its place")
    assert stopped.do("outcome", "waits") is None, "two are inside a limit of 1"
    second.leave("L")
    assert stopped.outcome("waits", 5) == "done"
    assert third.do("outcome", "waits") is None
    stopped.leave("L")
    assert third.outcome("waits", 5) == "done"


@needs_process_table
def test_a_waiter_that_comes_while_a_stopped_one_has_been_handed_the_slot_is_served(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("L", 1)
    holder, stopped, newcomer = (programs.puppet() for _ in range(3))
    holder.must_enter("L")
    _waits(stopped, home, "L")
    stopped.stop()
    holder.leave("L")

    assert newcomer.enters("L", timeout_seconds=LATE_SECONDS + 0.5)
    newcomer.leave("L")
    stopped.go_on()
    assert stopped.outcome("waits", 5) == "done"


@needs_process_table
def test_several_stopped_waiters_are_passed_over_together(programs: Cast, localconc_home_directory: Path) -> None:
    home = localconc_home_directory
    ensure_limit("L", 1)
    holder, alive = programs.puppet(), programs.puppet()
    stopped = [programs.puppet() for _ in range(3)]
    holder.must_enter("L")
    for puppet in stopped:
        _waits(puppet, home, "L")
        puppet.stop()
    _waits(alive, home, "L")

    holder.leave("L")

    assert alive.outcome("waits", LATE_SECONDS + 1) == "done"
    for puppet in stopped:
        puppet.go_on()
    until(lambda: in_line(home) == len(stopped), "those that go on are back in the queue, in their order")
    alive.leave("L")
    for puppet in stopped:
        assert puppet.outcome("waits", 5) == "done"
        puppet.leave("L")


def test_a_stopped_holder_keeps_its_slot(programs: Cast) -> None:
    ensure_limit("L", 1)
    holder, waiter = programs.puppet(), programs.puppet()
    holder.must_enter("L")
    holder.stop()

    assert not waiter.enters("L", timeout_seconds=2)
    holder.go_on()
    holder.leave("L")
    assert waiter.enters("L", timeout_seconds=5)


_BUSY_LOOP = """
import asyncio, sys, time
from localconc.asyncio import concurrency
async def one():
    async with concurrency(sys.argv[1].split(",")):
        print("in", flush=True)
async def main():
    print("started", flush=True)
    sys.stdin.readline()
    task = asyncio.ensure_future(one())
    while not await asyncio.to_thread(sys.stdin.readline):
        pass
    print("computes", flush=True)
    time.sleep(float(sys.argv[2]))
    await task
asyncio.run(main())
"""


def test_a_loop_that_computes_while_it_is_first_in_line_holds_others_up_for_a_second_at_most(
    programs: Cast, localconc_home_directory: Path
) -> None:
    """A loop that computes does not run, and is no different from one that is stopped."""
    home = localconc_home_directory
    ensure_limit("S", 10)
    ensure_limit("D", 1, slot_decay_per_second=3.0)
    busy, alive = programs.python(_BUSY_LOOP, "S,D", 4.0), programs.puppet()
    assert busy.hear() == "started"
    rate_limit("D")
    busy.say("wait")
    until(lambda: in_line(home) > 0, "the loop waits")
    busy.say("compute")
    assert busy.hear() == "computes"

    began = time.monotonic()
    alive.must_enter("S", timeout_seconds=3.5)

    assert time.monotonic() - began < LATE_SECONDS
    assert busy.hear() == "in"
