"""What grows with use shrinks again, and no cost grows faster than what it is for."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from localconc import AcquireConcurrencySlotTimeoutError, ensure_limit, read_waiters
from localconc._engine.acquiring import unadmitted
from localconc._engine.core.records import LimitRow
from localconc._engine.queue.explain import MAX_NAMED_HOLDERS, Reason
from localconc._engine.store.rows import listings
from localconc._engine.store.rows.ledger import Ledger
from localconc._engine.waiting import tasks
from localconc.asyncio import concurrency as task_concurrency
from localconc.sync import acquire, concurrency
from tests.faults.programs import Cast, Program, in_line, rows, until

Result = TypeVar("Result")


def counted(function: Callable[..., Result], calls: list[object]) -> Callable[..., Result]:
    """Return a function that notes each call before it does the same."""

    def counting(*arguments: Any, **more: Any) -> Result:
        calls.append(arguments)
        return function(*arguments, **more)

    return counting


# ---- 21: many at once ------------------------------------------------------------------------------------------------


async def _seconds_to_end(count: int, home: Path, how: str) -> float:
    """How long it takes until all of many waiting tasks are over once they are cancelled or their time is up."""

    async def job() -> None:
        async with task_concurrency("L", timeout_seconds=None if how == "cancelled" else wait_seconds):
            pass

    wait_seconds = 1.0 + count / 1000
    async with task_concurrency("L"):
        began = time.monotonic()
        jobs = [asyncio.ensure_future(job()) for _ in range(count)]
        while in_line(home) < count:
            assert time.monotonic() < began + 30
            await asyncio.sleep(0.02)
        if how == "cancelled":
            began = time.monotonic()
            for each in jobs:
                each.cancel()
        else:
            began += wait_seconds
        await asyncio.gather(*jobs, return_exceptions=True)
        return max(0.001, time.monotonic() - began)


@pytest.mark.parametrize("how", ["cancelled", pytest.param("out of time", marks=pytest.mark.sweep)])
def test_four_times_as_many_tasks_take_little_more_than_four_times_as_long_to_end(
    how: str, localconc_home_directory: Path
) -> None:
    ensure_limit("L", 1)
    few, many = (
        min(asyncio.run(_seconds_to_end(count, localconc_home_directory, how)) for _ in range(2))
        for count in (300, 1200)
    )

    # 300 end within 0.04 to 0.1 s; where the costs grew with the square, 1,200 took 1.4 s.
    assert many < 9 * max(few, 0.1), f"300 tasks: {few:.2f} s, 1200: {many:.2f} s"
    assert read_waiters() == []


def _seconds_for_a_refusal() -> float:
    times = []
    for _ in range(60):
        began = time.perf_counter()
        with pytest.raises(TimeoutError), concurrency("L", timeout_seconds=0):
            pass
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def test_a_refused_attempt_costs_no_more_among_many_limits(programs: Cast, tmp_path: Path) -> None:
    holder = programs.puppet()
    holder.must_enter("L", limit=1)
    among_few = _seconds_for_a_refusal()
    many = [
        {"name": f"limit {number}", "limit": 1, "active": True, "slot_decay_per_second": 0.0}
        for number in range(20_000)
    ]
    (tmp_path / "many.json").write_text(json.dumps(many))
    programs.command(sys.executable, "-m", "localconc", "import", str(tmp_path / "many.json")).finish(60)

    among_many = _seconds_for_a_refusal()

    assert among_many < 3 * among_few, f"{among_few * 1e6:.0f} µs, {among_many * 1e6:.0f} µs among 20,000 limits"


def test_requests_that_give_up_together_read_a_thousand_holders_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def job() -> AcquireConcurrencySlotTimeoutError:
        with pytest.raises(AcquireConcurrencySlotTimeoutError) as raised:
            async with task_concurrency("L", timeout_seconds=0.3):
                pass
        return raised.value

    async def jobs() -> list[AcquireConcurrencySlotTimeoutError]:
        return await asyncio.gather(*(job() for _ in range(20)))

    ensure_limit("L", 1000)
    held = [acquire("L") for _ in range(1000)]
    reads: list[object] = []
    monkeypatch.setattr(listings, "holders", counted(listings.holders, reads))
    errors = asyncio.run(jobs())

    assert len(reads) == 1, "each would take milliseconds, and all other tasks of the loop wait for it"
    assert [len(error.holders) for error in errors] == [1000] * 20
    held.pop(0).release()
    held.append(acquire("L", label="the newest"))
    later = _time_out("L")
    assert later.holders[0] == errors[0].holders[1], "a later one sees that a holder has left"
    assert later.holders[-1].label == "the newest"
    for each in held:
        each.release()


def test_a_transaction_that_refuses_a_request_reads_few_of_many_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_limit("L", 100)
    held = [acquire("L") for _ in range(100)]
    read: list[int] = []
    explain = unadmitted.explain

    def counting(*arguments: Any) -> Reason:
        reason = explain(*arguments)
        read.append(len(reason.entries))
        return reason

    monkeypatch.setattr(unadmitted, "explain", counting)
    error = _time_out("L")

    assert read == [MAX_NAMED_HOLDERS + 1]
    assert str(error).count("this process") == MAX_NAMED_HOLDERS
    assert ", and more; nobody ahead" in str(error)
    assert "100 of 100 in use" in str(error)
    assert "set by an operator" not in str(error)
    assert len(error.holders) == 100
    for each in held:
        each.release()


def _time_out(name: str) -> AcquireConcurrencySlotTimeoutError:
    with pytest.raises(AcquireConcurrencySlotTimeoutError) as raised, concurrency(name, timeout_seconds=0):
        pass
    return raised.value


def test_a_task_that_holds_nothing_looks_at_no_timer_before_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    monkeypatch.setattr(tasks, "_is_bounded", counted(tasks._is_bounded, looks))

    async def enter() -> None:
        async with task_concurrency("L"):
            pass

    async def enter_beside_a_holder() -> None:
        async with task_concurrency("other"):
            waiting = asyncio.ensure_future(enter())
            while not read_waiters("L"):
                await asyncio.sleep(0.01)
            assert looks == [], "a loop may have thousands of timers, and each of thousands of tasks would look at all"
            asyncio.get_running_loop().call_later(0.1, held.release)
            await enter()
            assert len(looks) == 1, "this task holds something, so its wait could be part of a deadlock"
            await waiting

    ensure_limit("L", 1)
    ensure_limit("other", 1)
    held = acquire("L")
    asyncio.run(asyncio.wait_for(enter_beside_a_holder(), 20))


@pytest.mark.parametrize("count", [5, 40])
def test_a_hand_over_of_many_limits_reads_each_of_them_a_few_times(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"L{number}" for number in range(count)]
    held = acquire(names, limit=1)
    threads = [threading.Thread(target=_enter_and_leave, args=(names,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(read_waiters()) == 3, "all wait")
    reads: list[object] = []
    read = Ledger.limit_with_id

    def counting(self: Ledger, limit_id: int) -> LimitRow | None:
        if threading.current_thread() is threading.main_thread():
            reads.append(limit_id)
        return read(self, limit_id)

    monkeypatch.setattr(Ledger, "limit_with_id", counting)
    held.release()

    assert len(reads) <= 3 * count
    for thread in threads:
        thread.join(20)
    assert read_waiters() == []


def _enter_and_leave(names: list[str]) -> None:
    with concurrency(names):
        pass


# ---- 22: dead processes ----------------------------------------------------------------------------------------------

_LONG_LIVED = """
import os, sys, time
from localconc.sync import concurrency
pids = []
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        with concurrency("L", limit=1000): pass
        if sys.argv[2] == "dies": os.kill(os.getpid(), 9)
        time.sleep(120)
        os._exit(0)
    pids.append(pid)
    if sys.argv[2] == "dies": os.waitpid(pid, 0)
print("started", flush=True)
sys.stdin.read()
if sys.argv[2] != "dies":
    for pid in pids: os.kill(pid, 9)
    for pid in pids: os.waitpid(pid, 0)
"""


@pytest.mark.sweep
def test_dead_processes_leave_nothing_behind_beside_many_that_live(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    alive = programs.python(_LONG_LIVED, 70, "lives")
    assert alive.hear() == "started"
    until(lambda: rows(home, "owners") >= 70, "all have used the limit")
    assert programs.python(_LONG_LIVED, 40, "dies").hear(30) == "started"

    for _ in range(5):
        programs.python("from localconc.sync import concurrency\nwith concurrency('L'): pass").finish()

    assert rows(home, "owners") <= 70 + 12
    assert len(list((home / "owners").iterdir())) <= 70 + 12
    alive.finish(30)


# ---- 23: threads that have waited ------------------------------------------------------------------------------------

_MANY_THREADS_WAIT = """
import os, sys, threading, time
import localconc
from localconc.sync import concurrency
count = int(sys.argv[1])
def work():
    with concurrency("L"): pass
block = concurrency("L")
block.__enter__()
threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
for thread in threads: thread.start()
while len(localconc.read_waiters()) < count: time.sleep(0.02)
def sockets():
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
        except OSError: pass
    return found
block.__exit__(None, None, None)
began = time.monotonic()
for thread in threads: thread.join()
took = time.monotonic() - began
with open("/dev/null"): pass
print(sockets(), took, flush=True)
sys.stdin.read()
"""


def test_few_sockets_stay_when_many_threads_have_waited(programs: Cast) -> None:
    ensure_limit("L", 1)
    program = programs.python(_MANY_THREADS_WAIT, 250)

    sockets, _ = program.hear(40).split()

    assert int(sockets) <= 16
    program.finish()
    assert program.process.returncode == 0


def test_many_threads_that_have_waited_and_live_on_keep_few_sockets(programs: Cast) -> None:
    ensure_limit("L", 1)
    code = _MANY_THREADS_WAIT.replace(
        'with concurrency("L"): pass\nblock',
        'with concurrency("L"): pass\n    left.append(1); done.wait()\nleft, done = [], threading.Event()\nblock',
    ).replace("for thread in threads: thread.join()", "while len(left) < count: time.sleep(0.01)")
    program = programs.python(code, 250)

    sockets, _ = program.hear(40).split()

    assert int(sockets) <= 16


@pytest.mark.sweep
def test_with_few_descriptors_many_threads_wait_and_files_can_still_be_opened(programs: Cast) -> None:
    ensure_limit("L", 1)
    program = programs.python(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n" + _MANY_THREADS_WAIT, 300
    )

    _, took = program.hear(60).split()

    assert float(took) < 4  # they would keep each other from running for 12 s if each polled by itself
    program.finish()
    assert program.errors() == ""


def test_waiting_works_with_more_descriptors_than_select_knows(programs: Cast, localconc_home_directory: Path) -> None:
    import resource

    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
        pytest.skip("no more than 2000 descriptors are permitted")
    ensure_limit("L", 1)
    ensure_limit("api", 1, slot_decay_per_second=20.0)
    holder, waiter = programs.puppet(), programs.puppet()
    holder.must_enter("L")
    waiter.run(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))\n"
        "opened = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]"
    )

    assert waiter.do("rate_limit", "api") == "done"
    assert waiter.do("rate_limit", "api", timeout_seconds=3) == "done"
    assert not waiter.enters("L", timeout_seconds=0.05)
    waiter.begins_to_enter("L", timeout_seconds=8)
    until(lambda: in_line(localconc_home_directory) == 1, "it waits")
    time.sleep(1.0)  # it has begun to watch
    holder.kill()

    assert waiter.outcome("L", 4) == "done"


def test_the_process_of_a_command_can_be_looked_at_with_more_descriptors_than_select_knows(programs: Cast) -> None:
    import resource

    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
        pytest.skip("no more than 2000 descriptors are permitted")
    ensure_limit("L", 1)
    command = programs.command(sys.executable, "-m", "localconc", "run", "L", "--", "sh", "-c", "echo in; read line")
    assert command.hear() == "in"
    newcomer = programs.puppet()
    newcomer.run(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))\n"
        "opened = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]"
    )

    assert not newcomer.enters("L")
    assert not newcomer.enters("L", timeout_seconds=1.5)
    command.say()
    assert newcomer.enters("L", timeout_seconds=5)


# ---- 24: the log -----------------------------------------------------------------------------------------------------


def _reader_that_does_not_end(programs: Cast, home: Path) -> Program:
    reader = programs.python(
        "import sqlite3, sys\nstore = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "store.execute('BEGIN'); store.execute('SELECT count(*) FROM limits').fetchone()\n"
        "print('reads', flush=True); sys.stdin.read()",
        home / "localconc.db",
    )
    assert reader.hear() == "reads"
    return reader


def _use(times: int) -> None:
    for _ in range(times):
        with concurrency("L", limit=1):
            pass


def test_the_log_shrinks_after_a_reader_that_did_not_end(programs: Cast, localconc_home_directory: Path) -> None:
    log = localconc_home_directory / "localconc.db-wal"
    _use(1)
    reader = _reader_that_does_not_end(programs, localconc_home_directory)
    _use(3000)
    grown = log.stat().st_size
    assert grown > 3 << 20

    reader.kill()
    _use(3000)

    assert log.stat().st_size < 2 << 20, f"it was {grown} bytes"


def test_the_doctor_says_who_reads_without_end(programs: Cast, localconc_home_directory: Path) -> None:
    _use(1)
    reader = _reader_that_does_not_end(programs, localconc_home_directory)
    _use(3000)

    _, report = programs.command(sys.executable, "-m", "localconc", "doctor").end(30)

    assert str(reader.pid) in report


def test_what_a_rate_limit_is_waited_for_does_not_make_the_store_grow(
    programs: Cast, localconc_home_directory: Path
) -> None:
    home = localconc_home_directory
    ensure_limit("api", 5, slot_decay_per_second=400.0)
    waits = "import threading\nfrom localconc.sync import rate_limit\n"
    waits += "def work():\n    for _ in range(300): rate_limit('api')\n"
    waits += "threads = [threading.Thread(target=work) for _ in range(3)]\n"
    waits += "[thread.start() for thread in threads]; [thread.join() for thread in threads]"
    programs.python(waits).finish(30)

    store = sqlite3.connect(home / "localconc.db")
    try:
        assert store.execute("SELECT count(*) FROM waiters").fetchone()[0] < 20
    finally:
        store.close()
    assert os.stat(home / "localconc.db").st_size < 1 << 20
