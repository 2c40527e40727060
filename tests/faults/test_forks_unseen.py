"""Forks that Python does not know of, programs that become others, descriptors closed: noticed at the next use."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from localconc import ensure_limit, read_holders, read_waiters
from tests.faults.programs import Cast, in_line, until
from tests.kit.processes import process_state

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# ---- forks in C ------------------------------------------------------------------------------------------------------

_FORKS_IN_C = """
import ctypes, os, sys, time
import localconc
from localconc.sync import concurrency, rate_limit

def fork():
    "As a program in C does it: Python's own hooks don't run."
    sys.stdout.flush()
    return ctypes.PyDLL(None).fork()
"""


def test_children_forked_in_c_keep_to_the_limit(programs: Cast, tmp_path: Path) -> None:
    ensure_limit("L", 2)
    log = tmp_path / "log"
    parent = programs.python(
        _FORKS_IN_C
        + """
with concurrency("L"): pass  # the application was used before the fork
children = []
for _ in range(4):
    pid = fork()
    if pid == 0:
        status = 1
        try:
            with open(sys.argv[1], "a", buffering=1) as log:
                end = time.monotonic() + 1.5
                while time.monotonic() < end:
                    with concurrency("L", timeout_seconds=5):
                        begun = time.monotonic()
                        time.sleep(0.002)
                        log.write(f"{begun} {time.monotonic()}\\n")
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\\n")
        finally:
            os._exit(status)
    children.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children], flush=True)
with concurrency("L", timeout_seconds=5): print("parent got in", flush=True)
""",
        log,
    )

    assert parent.hear(30) == "[0, 0, 0, 0]", parent.errors()
    assert parent.hear() == "parent got in"
    assert _peak(log) <= 2
    assert len(log.read_text().splitlines()) > 100
    parent.finish()
    until(lambda: not read_holders(), "nobody holds")


def _peak(log: Path) -> int:
    """How many of the logged intervals overlap at most."""
    moments = []
    for line in log.read_text().splitlines():
        begun, ended = map(float, line.split())
        moments += [(begun, 1), (ended, -1)]
    overlap = peak = 0
    for _, step in sorted(moments):
        overlap += step
        peak = max(peak, overlap)
    return peak


def test_a_child_forked_in_c_neither_gives_back_nor_keeps_what_is_its_parents(programs: Cast) -> None:
    ensure_limit("L", 1)
    parent = programs.python(
        _FORKS_IN_C
        + """
block = concurrency("L")
block.__enter__()
pid = fork()
if pid == 0:
    try:
        with concurrency("L", timeout_seconds=0): pass
        print("the child got in", flush=True)
    except TimeoutError:
        print("the child was kept out", flush=True)
    block.__exit__(None, None, None)
    print(len(localconc.read_holders("L")), flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(pid, 0)
"""
    )
    assert parent.hear() == "the child was kept out"
    assert parent.hear() == "1"
    holders = [holder.pid for holder in read_holders("L")]
    assert holders == [parent.pid]

    parent.kill()  # the child lives on

    assert programs.puppet().enters("L", timeout_seconds=3)


@pytest.mark.parametrize(
    "end_of_block",
    ["block.__exit__(None, None, None)", "asyncio.run(leave_task_block())", "del block; time.sleep(0.5)"],
)
def test_a_child_forked_in_c_that_ends_its_parents_block_first_of_all_gives_back_nothing(
    end_of_block: str, programs: Cast
) -> None:
    ensure_limit("L", 1)
    ensure_limit("T", 1)
    parent = programs.python(
        _FORKS_IN_C
        + f"""
import asyncio
from localconc.asyncio import concurrency as task_concurrency
block = concurrency("L")
block.__enter__()
task_block = task_concurrency("T")
asyncio.run(task_block.__aenter__())
async def leave_task_block(): await task_block.__aexit__(None, None, None)
pid = fork()
if pid == 0:
    {end_of_block}
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(localconc.read_holders()), flush=True)
sys.stdin.read()
"""
    )
    assert parent.hear() == "0 2", parent.errors()
    parent.finish()


def test_the_slot_of_a_child_forked_in_c_comes_back_when_it_is_killed(programs: Cast) -> None:
    ensure_limit("L", 1)
    parent = programs.python(
        _FORKS_IN_C
        + """
with concurrency("L"): pass
pid = fork()
if pid == 0:
    block = concurrency("L")
    block.__enter__()
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
os.waitpid(pid, 0)
print("reaped", flush=True)
sys.stdin.read()
"""
    )
    child = int(parent.hear())
    assert [holder.pid for holder in read_holders("L")] == [child]
    newcomer = programs.puppet()
    assert not newcomer.enters("L")

    os.kill(child, signal.SIGKILL)

    assert newcomer.enters("L", timeout_seconds=3)
    newcomer.leave("L")
    assert parent.hear() == "reaped"


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_child_forked_in_c_that_uses_no_limits_keeps_no_slot_of_its_parent_that_was_killed(
    is_waited_for: bool, programs: Cast
) -> None:
    """Such a child has its parent's locks without knowing it."""
    ensure_limit("L", 1)
    parent = programs.python(
        _FORKS_IN_C
        + """
block = concurrency("L")
block.__enter__()
pid = fork()
if pid == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(pid, 0)
"""
    )
    child = int(parent.hear())
    newcomer = programs.puppet()
    if is_waited_for:
        newcomer.begins_to_enter("L", timeout_seconds=5)
        until(lambda: newcomer.evaluate("len(localconc.read_waiters())") == 1, "it waits")

    parent.kill()

    assert process_state(child) == "S"
    if is_waited_for:
        assert newcomer.outcome("L", 5) == "done"
    else:
        assert newcomer.enters("L", timeout_seconds=3)
    assert process_state(child) == "S"


_MANY_WAIT = """
import asyncio, threading
import localconc.asyncio
from localconc.sync import concurrency

def wait_in_thread():
    with concurrency("L", timeout_seconds=20): served.append(1)

async def wait_in_tasks():
    async def wait():
        async with localconc.asyncio.concurrency("L", timeout_seconds=20): served.append(1)
    await asyncio.gather(*(wait() for _ in range(9)), return_exceptions=True)

served = []
threads = [threading.Thread(target=wait_in_thread) for _ in range(9)]
if sys.argv[1] == "tasks": threads = [threading.Thread(target=lambda: asyncio.run(wait_in_tasks()))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(served), flush=True)
"""


@pytest.mark.parametrize("face", ["threads", "tasks"])
def test_many_waiters_of_a_process_notice_the_death_of_a_holder_whose_child_forked_in_c_lives(
    face: str, programs: Cast
) -> None:
    ensure_limit("L", 1)
    holder = programs.python(
        _FORKS_IN_C
        + """
block = concurrency("L")
block.__enter__()
if fork() == 0:
    sys.stdin.read()
    os._exit(0)
print("holds", flush=True)
sys.stdin.read()
"""
    )
    assert holder.hear() == "holds"
    waiter = programs.python("import sys\n" + _MANY_WAIT, face)
    until(lambda: len(read_waiters()) == 9, "they wait")

    holder.kill()

    assert waiter.hear() == "9"


def test_a_command_keeps_the_slot_though_it_was_not_noted_before_its_parent_was_killed(programs: Cast) -> None:
    parent = programs.python(
        """
import subprocess, sys
from localconc.cli import engine_access
from localconc.sync import concurrency
block = concurrency("L", limit=1)
block.__enter__()
descriptor = engine_access.descriptor_to_hand_on()
command = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor], stdout=subprocess.DEVNULL)
print(command.pid, flush=True)
sys.stdin.read()
"""
    )
    command = int(parent.hear())
    parent.kill()
    try:
        assert not programs.puppet().enters("L")
    finally:
        os.kill(command, signal.SIGKILL)
    assert programs.puppet().enters("L", timeout_seconds=3)


def test_a_child_forked_in_c_in_the_middle_of_waiting_threads_works(programs: Cast) -> None:
    ensure_limit("L", 1)
    parent = programs.python(
        _FORKS_IN_C
        + """
import threading
from localconc._engine import registry
block = concurrency("L")
block.__enter__()
def wait():
    with concurrency("L"): print("the thread got in", flush=True)
thread = threading.Thread(target=wait)
thread.start()
while not localconc.read_waiters(): time.sleep(0.01)
with registry.current().store.database.lock: pid = fork()  # while it looks at the store, no child could use it
if pid == 0:
    with concurrency("other", limit=1, timeout_seconds=5): print("the child got in", flush=True)
    print(len(localconc.read_waiters("L")), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
block.__exit__(None, None, None)
thread.join()
"""
    )

    assert parent.hear() == "the child got in"
    assert parent.hear() == "1"
    assert parent.hear() == "the thread got in"
    parent.finish()


def test_a_child_forked_in_c_while_another_thread_was_inside_sqlite_is_told_so_at_once(programs: Cast) -> None:
    """That thread holds a mutex of SQLite's, which nobody releases in the child."""
    ensure_limit("L", 2)
    parent = programs.python(
        _FORKS_IN_C
        + """
import threading
from localconc._engine import registry
from localconc.errors import StoreError

inside, go_on = threading.Event(), threading.Event()

def work(connection, _):
    connection.create_function("pause", 0, lambda: inside.set() or go_on.wait(60) or 1)
    connection.execute("SELECT pause()").fetchone()

def attempt():
    begun = time.monotonic()
    try:
        with concurrency("L", timeout_seconds=20): print("got in", flush=True)
    except StoreError as error:
        print("at once:" if time.monotonic() - begun < 5 else "late:", error, flush=True)

def attempt_in_thread():
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()

block = concurrency("L")
block.__enter__()
database = registry.current().store.database
busy = threading.Thread(target=database.transact, args=("BEGIN", work, None))
busy.start()
inside.wait(60)
pid = fork()
if pid == 0:
    attempt_in_thread()
    attempt()
    os.environ["LOCALCONC_HOME"] += "-second"
    attempt()
    pid = os.fork()
    if pid == 0:
        attempt()
        os._exit(0)
    os.waitpid(pid, 0)
    block.__exit__(None, None, None)
    del block, database
    threading._shutdown = lambda: None  # it would wait for the parent's thread
    sys.exit(7)
ended, deadline = (0, 0), time.monotonic() + 30
while ended[0] == 0 and time.monotonic() < deadline:
    ended = os.waitpid(pid, os.WNOHANG)
    time.sleep(0.01)
print("the child ended:", os.waitstatus_to_exitcode(ended[1]) if ended[0] else os.kill(pid, 9), flush=True)
go_on.set()
busy.join()
print(len(localconc.read_holders("L")), flush=True)
attempt()
"""
    )

    for _ in range(4):
        assert parent.hear().startswith("at once: This process can't use the database"), parent.errors()
    assert parent.hear(60) == "the child ended: 7"
    assert parent.hear() == "1"
    assert parent.hear() == "got in"
    parent.finish()


# ---- uWSGI -----------------------------------------------------------------------------------------------------------

_APPLICATION = """
import os, time
from localconc import ensure_limit, read_waiters
from localconc.sync import concurrency

ensure_limit("L", 2)
with concurrency("L"):
    pass  # used while the application is imported: before uWSGI forks

def application(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        block = concurrency("L", timeout_seconds=5)
        block.__enter__()
        start_response("200 OK", [])
        globals().setdefault("kept", []).append(block)
        return [b"%d" % os.getpid()]
    try:
        with concurrency("L", timeout_seconds=10):
            begun = time.monotonic()
            time.sleep(0.01)
            with open(os.environ["LOG"], "a") as log:
                log.write(f"{begun} {time.monotonic()}\\n")
        start_response("200 OK", [])
        return [b"%d" % os.getpid()]
    except Exception as error:
        start_response("500 Error", [])
        return [f"{type(error).__name__}: {error}".encode()]
"""

_CLIENT = """
import json, sys, threading, urllib.error, urllib.request
answers = []
def work():
    for _ in range(int(sys.argv[2])):
        try:
            with urllib.request.urlopen(sys.argv[1], timeout=20) as response:
                answers.append([response.status, response.read().decode()])
        except urllib.error.HTTPError as error:
            answers.append([error.code, error.read().decode()])
        except OSError as error:
            answers.append([0, str(error)])
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(answers), flush=True)
"""


def _uwsgi() -> str:
    beside = Path(sys.executable).with_name("uwsgi")
    found = str(beside) if beside.exists() else shutil.which("uwsgi")
    if found is None:
        pytest.skip("uWSGI is not installed (it is in the extra `test`, and built from source: it needs a C compiler)")
    options = subprocess.run([found, "--help"], capture_output=True, text=True, check=False, timeout=20).stdout
    if "--pythonpath" not in options:
        pytest.skip(f"{found} was built without Python")
    return found


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="default"),
        pytest.param(["--enable-threads"], id="threads"),
        pytest.param(["--lazy-apps"], id="lazy", marks=pytest.mark.sweep),
    ],
)
def test_workers_of_uwsgi_keep_to_the_limit_and_a_killed_one_gives_its_slot_back(
    options: list[str], programs: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    server_program = _uwsgi()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "application.py").write_text(_APPLICATION)
    log = tmp_path / "log"
    monkeypatch.setenv("LOG", str(log))
    server = programs.command(
        server_program, "--http-socket", f"127.0.0.1:{port}", "--master", "--processes", "4", "--die-on-term",
        "--worker-reload-mercy", "5", "--pythonpath", str(tmp_path), "--wsgi", "application", "--home", sys.prefix,
        "--need-app", *options, stdin=-3,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    until(lambda: _answers(port) or server.process.poll() is not None, "it listens")
    assert server.process.poll() is None, server.errors()

    answers = json.loads(programs.python(_CLIENT, f"{address}/", 15).hear(60))

    assert [text for status, text in answers if status != 200] == []
    assert len({pid for _, pid in answers}) > 1, "only one worker worked"
    assert _peak(log) <= 2

    ((status, worker),) = [
        json.loads(programs.python(_CLIENT.replace("range(8)", "range(1)"), f"{address}/hold", 1).hear())[0]
    ]
    assert status == 200
    assert [holder.pid for holder in read_holders("L")] == [int(worker)]
    os.kill(int(worker), signal.SIGKILL)
    assert programs.puppet().enters("L", occupy=2, timeout_seconds=3)
    server.process.send_signal(signal.SIGINT)
    server.process.wait(15)


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---- exec ------------------------------------------------------------------------------------------------------------

_BECOMES_ANOTHER_PROGRAM = """
import os, sys, time
from localconc.sync import concurrency
block = concurrency("L", limit=1)
block.__enter__()
print("in", flush=True)
sys.stdin.readline()
print(time.monotonic(), flush=True)
os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(30)"])
"""


def test_a_holder_that_becomes_another_program_loses_its_slot_to_those_who_wait(
    programs: Cast, localconc_home_directory: Path
) -> None:
    """Within 0.1 s, which the bar here is five times of: new programs take a while to start."""
    holder, waiter = programs.python(_BECOMES_ANOTHER_PROGRAM), programs.puppet()
    assert holder.hear() == "in"
    waiter.run("import time")
    waiter.do("begin", "waits", "evaluate", "(sync.concurrency('L').__enter__(), time.monotonic())[1]")
    until(lambda: in_line(localconc_home_directory) == 1, "it waits")
    time.sleep(0.3)

    holder.say()
    gone_at = float(holder.hear())

    assert waiter.outcome("waits", 5) - gone_at < 3
    assert holder.process.poll() is None, "it lives on, as another program"


def test_a_holder_that_became_another_program_keeps_no_newcomer_out(programs: Cast) -> None:
    holder, newcomer = programs.python(_BECOMES_ANOTHER_PROGRAM), programs.puppet()
    assert holder.hear() == "in"
    newcomer.must_enter("other", limit=1)
    holder.say()
    holder.hear()

    began = time.monotonic()
    newcomer.must_enter("L")

    assert time.monotonic() - began < 3


def test_a_waiter_that_becomes_another_program_leaves_the_queue(programs: Cast, localconc_home_directory: Path) -> None:
    ensure_limit("L", 1)
    holder, behind = programs.puppet(), programs.puppet()
    holder.must_enter("L")
    first = programs.puppet()
    first.begins_to_enter("L")
    until(lambda: in_line(localconc_home_directory) == 1, "the first waits")
    behind.begins_to_enter("L")
    until(lambda: in_line(localconc_home_directory) == 2, "another waits behind it")

    first.tell("run", f"os.execv({sys.executable!r}, ['python', '-c', 'import time; time.sleep(30)'])")
    until(lambda: b"time.sleep(30)" in Path(f"/proc/{first.pid}/cmdline").read_bytes(), "it is another program")
    holder.leave("L")

    assert behind.outcome("L", 3) == "done"


# ---- descriptors that were closed ------------------------------------------------------------------------------------

_CLOSES_EVERYTHING = """
import os
os.closerange(3, 4096)
user = [os.open(os.environ["USER_FILE"] + str(number), os.O_RDWR | os.O_CREAT) for number in range(8)]
for descriptor in user: os.write(descriptor, b"the user's own words")
"""


@pytest.mark.parametrize("timeout_seconds", [0, pytest.param(1, marks=pytest.mark.sweep), 2])
def test_a_process_whose_descriptors_were_closed_goes_on_or_gets_an_error_in_time(
    timeout_seconds: float, programs: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_FILE", str(tmp_path / "user"))
    ensure_limit("L", 1)
    process = programs.puppet()
    process.must_enter("L")
    process.leave("L")

    process.run(_CLOSES_EVERYTHING)
    began = time.monotonic()
    answer = process.do("enter", "L", timeout_seconds=timeout_seconds)

    assert time.monotonic() - began < timeout_seconds + 1.5
    assert answer == "done" or answer[0] in ("StoreError", "AcquireConcurrencySlotTimeoutError"), answer
    again = process.do("enter", "M", limit=1, timeout_seconds=3)
    assert again == "done" or again[0] == "StoreError", again
    if answer != "done" and "taken their numbers" in answer[1]:
        assert again == answer, "SQLite would lock the user's files in place of the store"
    if answer == "done":
        assert not programs.puppet().enters("L"), "two hold a limit of 1"
        process.leave("L")
    assert [path.read_bytes() for path in sorted(tmp_path.glob("user*"))] == [b"the user's own words"] * 8
    process.kill()
    assert programs.puppet().enters("L", timeout_seconds=3)


def test_what_a_process_holds_when_its_descriptors_are_closed_is_not_held_twice(
    programs: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its next use on; before that, its lock looks like that of a process that has died."""
    monkeypatch.setenv("USER_FILE", str(tmp_path / "user"))
    process = programs.puppet()
    process.must_enter("L", limit=1)

    process.run(_CLOSES_EVERYTHING)
    again = process.do("enter", "other", limit=1, timeout_seconds=3)

    if again == "done":
        assert not programs.puppet().enters("L"), "two hold a limit of 1"
        process.leave("L")
    else:
        assert again[0] == "StoreError", again
        process.kill()
    assert programs.puppet().enters("L", timeout_seconds=3)
    assert [path.read_bytes() for path in sorted(tmp_path.glob("user*"))] == [b"the user's own words"] * 8


def test_waiting_goes_on_where_the_descriptors_were_closed_before_it(
    programs: Cast, localconc_home_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER_FILE", str(tmp_path / "user"))
    ensure_limit("L", 1)
    holder, process = programs.puppet(), programs.puppet()
    holder.must_enter("L")
    assert not process.enters("L", timeout_seconds=0.01)  # it has a mailbox now

    process.run(_CLOSES_EVERYTHING)
    process.begins_to_enter("L", timeout_seconds=6)
    until(lambda: in_line(localconc_home_directory) == 1 or process.do("outcome", "L"), "it waits, or has an error")
    holder.leave("L")

    outcome = process.outcome("L", 8)
    assert outcome == "done" or outcome[0] == "StoreError", outcome
