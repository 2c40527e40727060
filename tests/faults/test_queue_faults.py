"""Nobody vanishes from a queue, and no place in a queue outlives its waiter, whatever operators and threads do."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from localconc import delete_limit, ensure_limit, read_holders, read_limit, read_waiters, update_limit
from localconc.errors import LimitNotFoundError
from localconc.sync import concurrency, rate_limit
from tests.faults.load import LOAD
from tests.faults.programs import Cast, Puppet, in_line, rows, until

# ---- a waiter that was refused, and asks again -----------------------------------------------------------------------


def test_a_thread_that_was_refused_and_asks_again_stays_in_the_queue(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("api", 10, slot_decay_per_second=0.001)
    ensure_limit("db", 3)
    rate_limit("api", occupy=10)
    first, second = programs.puppet(), programs.puppet()
    first.do("begin", "waits", "rate_limit", "api", occupy=2)
    until(lambda: in_line(home) == 1, "the first waits")
    second.do("begin", "asks for 5", "rate_limit", "api", occupy=5)
    until(lambda: in_line(home) == 2, "the second waits")

    update_limit("api", limit=4)
    assert second.outcome("asks for 5")[0] == "ConcurrencySlotAcquisitionError"
    second.do("begin", "asks for 1", "rate_limit", "api", occupy=1)
    until(lambda: in_line(home) == 2, "the second waits again")
    for _ in range(3):  # quiet transactions of the same process
        second.must_enter("db")
        second.leave("db")

    assert [(waiter.pid, waiter.slots) for waiter in read_waiters("api")] == [(first.pid, 2), (second.pid, 1)]
    update_limit("api", limit=20)
    assert first.outcome("waits") == "done"
    assert second.outcome("asks for 1") == "done"
    assert in_line(home) == 0
    rate_limit("api", timeout_seconds=5)


def _two_wait(programs: Cast, home: Path, prepare_first: str = "") -> tuple[Puppet, Puppet, Puppet]:
    """A holder, and two that wait, on a limit of 1."""
    ensure_limit("L", 1)
    holder, first, second = programs.puppet(), programs.puppet(), programs.puppet()
    holder.must_enter("L")
    first.run(prepare_first)
    first.tell("run", _ENTER_UNLESS_STRUCK)
    until(lambda: in_line(home) == 1, "the first waits")
    second.begins_to_enter("L", "again")
    until(lambda: in_line(home) == 2, "the second waits")
    return holder, first, second


_ENTER_UNLESS_STRUCK = """
try:
    sync.concurrency("L", timeout_seconds=10).__enter__()  # and nobody keeps the block
except KeyboardInterrupt:
    result = "struck"
"""


def _asks_again_behind(first: Puppet, second: Puppet, home: Path) -> None:
    """Once the second has been served, the first waits for it, whatever its process does meanwhile, and is served."""
    assert second.outcome("again") == "done"
    second.must_enter("other", limit=1)  # a quiet transaction, which clears up
    second.leave("other")
    first.begins_to_enter("L", "again")
    until(lambda: in_line(home) == 1, "the first waits again")
    for _ in range(3):
        first.must_enter("other", limit=1)
        first.leave("other")
    assert [waiter.pid for waiter in read_waiters("L")] == [first.pid]
    second.leave("L")
    assert first.outcome("again", 5) == "done"
    assert in_line(home) == 0


def test_a_thread_that_dropped_its_block_and_asks_again_stays_in_the_queue(
    programs: Cast, localconc_home_directory: Path
) -> None:
    holder, first, second = _two_wait(programs, localconc_home_directory)

    holder.leave("L")

    assert first.answer() == "done"
    _asks_again_behind(first, second, localconc_home_directory)


def test_a_thread_that_was_interrupted_when_it_was_admitted_and_asks_again_stays_in_the_queue(
    programs: Cast, localconc_home_directory: Path
) -> None:
    strike_once = (
        "import signal\nfrom localconc import events\n"
        "stop = events.subscribe(lambda event: (stop(), signal.raise_signal(signal.SIGINT)))"
    )
    holder, first, second = _two_wait(programs, localconc_home_directory, strike_once)

    holder.leave("L")

    assert first.answer() == "struck"
    _asks_again_behind(first, second, localconc_home_directory)


def _under_load(programs: Cast, home: Path, kind: str, seconds: float) -> None:
    """Two processes with three threads each; afterwards nothing is left, and a newcomer gets in."""
    ensure_limit("api", 6, slot_decay_per_second=200.0 if kind == "lowered" else 0.0)
    if kind != "lowered":
        update_limit("api", limit=2)
    crowd = [programs.python(LOAD, seconds, kind) for _ in range(2)]
    chance, end = random.Random(7), time.monotonic() + seconds
    while kind == "lowered" and time.monotonic() < end:
        update_limit("api", limit=chance.choice((2, 4, 6)))
        time.sleep(0.003)
    reports = [program.hear(seconds + 30) for program in crowd]

    assert [report.rpartition(" ")[0] for report in reports] == ["well", "well"]
    assert all(int(report.rpartition(" ")[2]) > 10 for report in reports), "hardly anything happened"
    until(lambda: not read_holders() and not read_waiters(), "nobody is left")
    assert in_line(home) == 0
    update_limit("api", limit=6)
    assert programs.puppet().enters("api", timeout_seconds=5)


def test_under_a_limit_that_is_lowered_and_raised_nobody_vanishes_and_no_place_stays(
    programs: Cast, localconc_home_directory: Path
) -> None:
    _under_load(programs, localconc_home_directory, "lowered", 3.0)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["lowered", "dropped"])
def test_under_long_load_nobody_vanishes_and_no_place_stays(
    kind: str, programs: Cast, localconc_home_directory: Path
) -> None:
    _under_load(programs, localconc_home_directory, kind, 25.0)


# ---- limits that go away under those who wait on several -------------------------------------------------------------


def _two_wait_on_both(programs: Cast, home: Path, room: int) -> tuple[Puppet, Puppet, Puppet]:
    """A holder of `gpu`, and two who wait on `gpu` and `db`."""
    ensure_limit("db", room)
    ensure_limit("gpu", 1)
    holder, first, second = programs.puppet(), programs.puppet(), programs.puppet()
    holder.must_enter("gpu")
    for count, waiter in enumerate((first, second), 1):
        waiter.begins_to_enter(["gpu", "db"], "both")
        until(lambda expected=count: in_line(home) == 2 * expected, "it waits")  # type: ignore[misc]
    return holder, first, second


def _delete_gpu() -> None:
    delete_limit("gpu")


def _disable_gpu() -> None:
    update_limit("gpu", active=False)


def _rename_gpu() -> None:
    update_limit("gpu", name="accelerator")


_WAYS_TO_GO = pytest.mark.parametrize("go_away", [_delete_gpu, _disable_gpu, _rename_gpu])


@_WAYS_TO_GO
@pytest.mark.parametrize("room", [2, 5])
def test_where_the_other_limit_has_room_all_who_waited_on_both_get_in(
    room: int, go_away: object, programs: Cast, localconc_home_directory: Path
) -> None:
    _, first, second = _two_wait_on_both(programs, localconc_home_directory, room)

    go_away()  # type: ignore[operator]

    assert first.outcome("both", 5) == "done"
    assert second.outcome("both", 5) == "done"
    assert read_limit("db").active_slots == 2
    first.leave(["gpu", "db"])
    second.leave(["gpu", "db"])
    assert read_limit("db").active_slots == 0
    assert in_line(localconc_home_directory) == 0
    assert programs.puppet().enters("db", occupy=room)


@_WAYS_TO_GO
def test_where_the_other_limit_has_no_room_they_get_in_one_after_the_other_and_leave_nothing(
    go_away: object, programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    third = programs.puppet()
    third.must_enter("db", limit=1)
    _, first, second = _two_wait_on_both(programs, home, room=1)

    go_away()  # type: ignore[operator]
    assert first.do("outcome", "both") is None
    third.leave("db")

    assert first.outcome("both", 5) == "done"
    assert second.do("outcome", "both") is None, "two are inside a limit of 1"
    first.leave(["gpu", "db"])
    assert second.outcome("both", 5) == "done"
    second.leave(["gpu", "db"])
    assert read_holders("db") == []
    assert read_limit("db").active_slots == 0
    assert in_line(home) == 0
    assert third.enters("db", timeout_seconds=2)


@_WAYS_TO_GO
def test_where_one_slot_is_free_one_of_two_gets_in(
    go_away: object, programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    holder, first, second = _two_wait_on_both(programs, home, room=1)

    go_away()  # type: ignore[operator]

    assert first.outcome("both", 5) == "done"
    assert second.do("outcome", "both") is None, "two are inside a limit of 1"
    assert [each.pid for each in read_holders("db")] == [first.pid]
    first.leave(["gpu", "db"])
    assert second.outcome("both", 5) == "done"
    second.leave(["gpu", "db"])
    for puppet in (first, second, holder):
        puppet.kill()
    assert programs.puppet().enters("db", timeout_seconds=2)
    assert read_limit("db").active_slots == 0 or read_holders("db")


def test_limits_deleted_and_made_anew_while_many_wait_leave_nothing(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    names = ["db", "gpu", "net"]
    for name in names:
        ensure_limit(name, 1)
    chance = random.Random(11)
    crowd = [programs.puppet() for _ in range(3)]
    for number, puppet in enumerate(crowd):
        puppet.run(_BUSY.format(number=number))
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        name = chance.choice(names)
        delete_or_change = chance.choice(("delete", "disable", "enable", "limit", "rename"))
        try:
            if delete_or_change == "delete":
                delete_limit(name)
                ensure_limit(name, 1)
            elif delete_or_change == "rename":
                update_limit(name, name="spare")
                update_limit("spare", name=name)
            elif delete_or_change == "limit":
                update_limit(name, limit=chance.choice((0, 1, 2)))
            else:
                update_limit(name, active=delete_or_change == "enable")
        except LimitNotFoundError:
            ensure_limit(name, 1)
        time.sleep(0.002)
    for name in names:
        ensure_limit(name, 1)
    troubles = [puppet.run("stop = True\nfor t in threads: t.join(5)\nresult = troubles") for puppet in crowd]

    assert troubles == [[], [], []]
    until(lambda: not read_holders() and not read_waiters(), "nobody is left")
    assert in_line(home) == 0
    assert [read_limit(name).active_slots for name in names] == [0, 0, 0]
    with concurrency(names, timeout_seconds=5):
        pass


_BUSY = """
import random, threading
stop, troubles = False, []
def work(number):
    chance = random.Random(number)
    while not stop:
        names = chance.sample(["db", "gpu", "net"], chance.choice((1, 2, 2, 3)))
        try:
            with sync.concurrency(names, timeout_seconds=0.2, create_if_missing=False):
                pass
        except (TimeoutError, localconc.ConcurrencySlotAcquisitionError):
            pass
        except Exception as error:
            troubles.append(type(error).__name__ + ": " + str(error))
            return
threads = [threading.Thread(target=work, args=(10 * {number} + each,), daemon=True) for each in range(3)]
for thread in threads:
    thread.start()
result = None
"""


# ---- limits with `limit=` in the call --------------------------------------------------------------------------------


@pytest.mark.parametrize("goes", ["is deleted", "is renamed"])
def test_an_inactive_limit_that_goes_away_is_made_anew_for_those_who_wait_with_a_limit(
    goes: str, programs: Cast, localconc_home_directory: Path
) -> None:
    """They are answered as if they had just called: their `limit=` makes the missing limit, and it counts for them."""
    ensure_limit("db", 1)
    ensure_limit("idle", 5, active=False)
    holder, waiter = programs.puppet(), programs.puppet()
    holder.must_enter("db")
    waiter.begins_to_enter(["db", "idle"], "both", limit=2)
    until(lambda: in_line(localconc_home_directory) > 0, "it waits")

    if goes == "is deleted":
        delete_limit("idle")
    else:
        update_limit("idle", name="other")
    holder.leave("db")

    assert waiter.outcome("both", 5) == "done"
    assert read_limit("idle").limit == 2
    assert read_limit("idle").active_slots == 1


# ---- rows of those who were served -----------------------------------------------------------------------------------


def test_the_rows_of_served_requests_stay_few_under_a_rate_limit_that_is_always_waited_for(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("api", 10, slot_decay_per_second=300.0)
    crowd = [
        programs.python(
            "import sys, threading\nfrom localconc.sync import rate_limit\n"
            "def work():\n    for _ in range(150): rate_limit('api')\n"
            "threads = [threading.Thread(target=work) for _ in range(2)]\n"
            "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
            "print('over', flush=True); sys.stdin.read()"
        )
        for _ in range(2)
    ]
    most = 0
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        time.sleep(0.05)
        most = max(most, rows(home, "waiters")) if (home / "localconc.db").exists() else 0
    for program in crowd:
        assert program.hear() == "over"

    assert most < 100, f"{most} rows of requests while 4 threads wait"
    assert rows(home, "waiters") < 20


def test_refused_newcomers_do_not_wake_the_first_in_line(programs: Cast, localconc_home_directory: Path) -> None:
    """Only a waiter that has become first has a new alarm to set."""
    ensure_limit("api", 1, slot_decay_per_second=0.01)
    rate_limit("api")
    first = programs.puppet()
    first.do("begin", "waits", "rate_limit", "api")
    until(lambda: in_line(localconc_home_directory) == 1, "the first waits")

    def wakeups() -> int:
        """How often the thread that waits has slept."""
        threads = Path(f"/proc/{first.pid}/task")
        newest = max(threads.iterdir(), key=lambda thread: int(thread.name))
        return int((newest / "status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])

    before = wakeups()
    began = time.monotonic()
    refused = programs.python(
        "from localconc.sync import rate_limit\nfor _ in range(300):\n    try: rate_limit('api', timeout_seconds=0)\n"
        "    except TimeoutError: pass\nprint('over', flush=True)"
    )
    assert refused.hear() == "over"
    by_polling = (time.monotonic() - began) * 10

    assert wakeups() - before < 20 + by_polling


def test_the_place_of_a_waiter_whose_process_was_killed_goes_with_it(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("a", 1)
    ensure_limit("b", 1)
    holder, doomed, next_one = programs.puppet(), programs.puppet(), programs.puppet()
    holder.must_enter("a")
    doomed.begins_to_enter(["a", "b"], "both")
    until(lambda: in_line(home) == 2, "it waits on both")
    next_one.begins_to_enter("b", "b")
    until(lambda: in_line(home) == 3, "another waits behind it")

    doomed.kill()

    assert next_one.outcome("b", 5) == "done"
    assert in_line(home) == 0


def _subprocess_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_the_doctor_finds_nothing_after_limits_were_deleted_under_those_who_wait(
    programs: Cast, localconc_home_directory: Path
) -> None:
    _, first, second = _two_wait_on_both(programs, localconc_home_directory, room=1)
    delete_limit("gpu")
    assert first.outcome("both", 5) == "done"
    first.leave(["gpu", "db"])
    assert second.outcome("both", 5) == "done"
    second.leave(["gpu", "db"])

    doctor = subprocess.run(
        [sys.executable, "-m", "localconc", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=_subprocess_environment(),
    )

    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
