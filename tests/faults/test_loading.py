"""What a process loads only at its first use: forks, handlers of signals and jails meet it at that very moment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.faults.programs import Cast
from tests.kit.systems import needs_fork

#: Calls `at_load` with the name of each module, before it is loaded.
_NOTICES = """
import os, signal, sys, threading, time
from localconc.sync import concurrency

class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        at_load(name)

with concurrency("L", limit=1): pass
sys.meta_path.insert(0, Finder)
"""

_FORKS = (
    _NOTICES
    + """
from localconc._engine import registry
loads, forks = threading.Event(), threading.Event()

def at_load(name):
    if name == "localconc._engine.operations.limits" and threading.current_thread() is not threading.main_thread():
        loads.set()
        forks.wait(10)
        time.sleep(0.2)  # a fork that does not wait would be over by now

thread = threading.Thread(target=lambda: registry.keeper().read_all())
thread.start()
assert loads.wait(10)
os.register_at_fork(before=forks.set)
child = os.fork()
if child == 0:
    threading.Timer(10, os._exit, [1]).start()  # instead of forever
    print(len(registry.keeper().read_all()), flush=True)
    os._exit(0)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
)

_HANDLES = (
    _NOTICES
    + """
from localconc._engine import registry

def at_load(name):
    if name == "localconc._engine.operations.limits":
        signal.raise_signal(signal.SIGINT)

def handler(*_):
    try:
        registry.keeper().read_all()
    except Exception as error:
        print(type(error).__name__, "signal handler" in str(error))

signal.signal(signal.SIGINT, handler)
print(len(registry.keeper().read_all()))
"""
)

_IN_JAIL = (
    _NOTICES
    + """
def at_load(name): print("loads", name)

os.chroot(sys.argv[1])
with concurrency("L") as occupancy:
    print(occupancy.numbers)
"""
)


@needs_fork
def test_a_child_that_is_forked_while_another_thread_loads_something_can_use_it(programs: Cast) -> None:
    assert programs.python(_FORKS).finish().split() == ["1", "0"]


@pytest.mark.skipif(sys.platform == "win32", reason="handlers of signals run elsewhere there")
def test_a_handler_that_interrupts_the_loading_of_what_it_uses_is_told_so(programs: Cast) -> None:
    assert programs.python(_HANDLES).finish().splitlines() == ["StoreError True", "1"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, for chroot")
@pytest.mark.skipif(not shutil.which("chroot"), reason="needs chroot")
def test_a_process_in_a_jail_gets_slot_numbers_for_the_first_time(programs: Cast, tmp_path: Path) -> None:
    assert programs.python(_IN_JAIL, tmp_path).finish().splitlines() == ["(0,)"]
