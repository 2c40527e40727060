"""Signal handlers that strike as a fork begins or ends, and fork or raise there: nothing hangs, in either process."""

from __future__ import annotations

import os
from importlib.metadata import version

import pytest

from localconc import ensure_limit
from tests.faults.programs import Cast

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

_PROGRAM = """
import os, signal, sys, threading, time
import localconc
from localconc._engine import registry
from localconc.sync import concurrency

sys.unraisablehook = lambda what: None  # Python reports there what handlers raise in a hook, and forks
main = threading.get_ident()

class Raised(Exception): pass

def use(name="L"):
    with concurrency(name, limit=1, timeout_seconds=5): pass

def fork_and_use():
    "Return how the child that uses a limit ends; -9 if it hangs."
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        try:
            use()
            os._exit(0)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline: os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(ended[1])

def in_thread(function):
    "Return whether a function that another thread calls returns."
    done = []
    thread = threading.Thread(target=lambda: done.append(function()), daemon=True)
    thread.start()
    thread.join(20)
    return bool(done)

def in_second_home():
    os.environ["LOCALCONC_HOME"] += "-second"
    use()
"""

_BUSY_THREAD = (
    _PROGRAM
    + """
use()
struck = threading.Event()
inside = threading.Event()

def is_forking():
    frame = sys._current_frames()[main]
    while frame is not None:
        if frame.f_code.co_name == "_take_locks": return True
        frame = frame.f_back
    return False

def work(txn):
    inside.set()
    while not is_forking(): time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)
    struck.wait(20)

thread = threading.Thread(target=registry.current().store.transact, args=(work,), daemon=True)

def strike(*_):
    struck.set()
    handle()

signal.signal(signal.SIGUSR1, strike)
"""
)

_END = """
thread.start()
inside.wait(20)
print(fork_and_use(), in_thread(use), in_thread(in_second_home), flush=True)
os._exit(0)
"""


def test_a_handler_that_forks_while_a_fork_waits_for_a_transaction_lets_both_children_and_all_threads_go_on(
    programs: Cast,
) -> None:
    ensure_limit("L", 1)
    handle = """
def handle(): print("the handler's child:", fork_and_use(), flush=True)
"""
    program = programs.python(_BUSY_THREAD + handle + _END)

    assert program.hear(60) == "the handler's child: 0"
    assert program.hear(60) == "0 True True"


def test_a_handler_that_raises_while_a_fork_waits_for_a_transaction_lets_the_child_and_all_threads_go_on(
    programs: Cast,
) -> None:
    ensure_limit("L", 1)
    handle = """
def handle(): raise Raised
"""
    assert programs.python(_BUSY_THREAD + handle + _END).hear(60) == "0 True True"


def test_a_child_made_by_a_handler_that_goes_on_with_the_fork_that_it_interrupted_can_use_limits(
    programs: Cast,
) -> None:
    ensure_limit("L", 1)
    handle = """
def handle():
    pid = os.fork()
    if pid != 0: print("the handler's child:", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
    program = programs.python(_BUSY_THREAD + handle + _END)

    assert program.hear(60) == "0 True True", "the handler's child"
    assert program.hear(60) == "the handler's child: 0"
    assert program.hear(60) == "0 True True"


@pytest.mark.skipif(
    int(version("filelock").split(".")[0]) < 4 or version("filelock").startswith(("4.0.", "4.1.")),
    reason="filelock before 4.2 refuses forks in the middle of its own steps, or hangs in the child",
)
@pytest.mark.parametrize("handler", ["raise Raised", "children.append(fork_and_use())"])
def test_a_handler_that_strikes_at_any_moment_of_a_fork_lets_nothing_hang(handler: str, programs: Cast) -> None:
    ensure_limit("L", 1)
    program = programs.python(
        _PROGRAM
        + f"""
children = []
def handle(*_): {handler}
signal.signal(signal.SIGALRM, handle)
for step in range(150):
    use()  # opens the database
    try:
        signal.setitimer(signal.ITIMER_REAL, 5e-6 * (step + 1))
        children.append(fork_and_use())
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Raised:
        pass
signal.signal(signal.SIGALRM, signal.SIG_IGN)
print(set(children), in_thread(use), in_thread(in_second_home), flush=True)
os._exit(0)
"""
    )
    assert program.hear(90) == "{0} True True"
