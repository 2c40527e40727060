"""A signal handler or finalizer that acquires while the store is opened gets in or gets an error, and leaks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.programs import Cast

#: Counts the calls of localconc's functions; at a chosen one, acquires as a signal's handler would there.
_INTERRUPTS_ITSELF = r"""
import json, os, shutil, sys, time
import localconc
from localconc.sync import concurrency

package = os.path.dirname(localconc.__file__)
base, kind, step = sys.argv[1], sys.argv[2], int(sys.argv[3])

def prepare(home):
    if kind == "an existing store":
        shutil.copytree(base, home)
    os.environ["LOCALCONC_HOME"] = home

def handler():
    try:
        with concurrency("L", limit=1, timeout_seconds=0.3):
            return "in"
    except Exception as error:
        return type(error).__name__

def opening(at):
    seen, outcome = 0, None
    def trace(frame, event, argument):
        nonlocal seen, outcome
        if event == "call" and frame.f_code.co_filename.startswith(package):
            seen += 1
            if seen == at:
                outcome = (frame.f_code.co_qualname, handler())
        return None
    sys.settrace(trace)
    try:
        with concurrency("first", limit=1, timeout_seconds=5):
            pass
    finally:
        sys.settrace(None)
    return seen, outcome

def troubles_after():
    found = []
    shown = localconc.read_limits()
    if [each for each in shown if each.active_slots]:
        found.append(f"occupied: {[(each.name, each.active_slots) for each in shown]}")
    if localconc.read_waiters() or localconc.read_holders():
        found.append("somebody is left")
    for name in ("L", "first"):
        with concurrency(name, limit=1, timeout_seconds=1):
            try:
                with concurrency(name, timeout_seconds=0):
                    found.append(f"two hold {name}")
            except TimeoutError:
                pass
    return found

troubles, at, outcome = [], 1, ("", "")
while outcome is not None:
    home = f"{base}-{at}"
    prepare(home)
    try:
        seen, outcome = opening(at)
        found = troubles_after()
    except Exception as error:
        seen, outcome, found = 0, outcome, [f"{type(error).__name__}: {error}"]
    if outcome is not None and outcome[1] not in ("in", "StoreError"):
        found.append(f"the handler got {outcome[1]}")
    if found:
        troubles.append(f"{at} ({outcome}): {'; '.join(found)}")
    at += step
    if len(troubles) >= 5:
        break
print(json.dumps([at, troubles]), flush=True)
"""


def _interrupted_everywhere(programs: Cast, home: Path, kind: str, step: int) -> tuple[int, list[str]]:
    import json

    programs.python("from localconc import ensure_limit\nensure_limit('L', 1); ensure_limit('first', 1)").finish()
    calls, troubles = json.loads(programs.python(_INTERRUPTS_ITSELF, home, kind, step).hear(110))
    return calls, troubles


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("an existing store", 3),
        ("a new store", 3),
        pytest.param("an existing store", 1, marks=pytest.mark.sweep),
        pytest.param("a new store", 1, marks=pytest.mark.sweep),
    ],
)
def test_a_handler_that_acquires_while_the_store_is_opened_leaves_nothing(
    kind: str, step: int, programs: Cast, localconc_home_directory: Path
) -> None:
    calls, troubles = _interrupted_everywhere(programs, localconc_home_directory, kind, step)

    assert troubles == []
    assert calls > 20


def test_a_finalizer_that_acquires_during_the_first_use_leaves_nothing(programs: Cast) -> None:
    program = programs.python(
        "import gc, localconc\nfrom localconc.sync import concurrency\n"
        "outcomes = []\n"
        "class Finalized:\n"
        "    def __init__(self): self.myself = self\n"
        "    def __del__(self):\n"
        "        try:\n"
        "            with concurrency('L', limit=1, timeout_seconds=1): outcomes.append('in')\n"
        "        except localconc.StoreError: outcomes.append('StoreError')\n"
        "        except Exception as error: outcomes.append(type(error).__name__)\n"
        "gc.set_threshold(1)\n"
        "for _ in range(50): Finalized()\n"
        "with concurrency('first', limit=1, timeout_seconds=5): pass\n"
        "gc.collect()\n"
        "print(sorted(set(outcomes) - {'in', 'StoreError'}), [each.active_slots for each in localconc.read_limits()],\n"
        "    flush=True)"
    )

    assert program.hear() in ("[] [0, 0]", "[] [0]")


def test_a_handler_that_interrupts_the_first_reading_of_holders_gets_an_error_of_ours(programs: Cast) -> None:
    """Their moments need pendulum, which is loaded only then: half of it is there when the handler strikes."""
    holder = programs.puppet()
    holder.must_enter("L", limit=1)
    program = programs.python(
        """
import sys
import localconc
from localconc.sync import concurrency

outcomes, struck = [], []

def enter():
    try:
        with concurrency("L", timeout_seconds=0): outcomes.append("in")
    except localconc.AcquireConcurrencySlotTimeoutError as refusal:
        try:
            outcomes.append(len(refusal.holders))
        except Exception as error:
            outcomes.append(type(error).__name__)

class StrikesInTheMiddle:
    def find_spec(self, name, path=None, target=None):
        if name == "pendulum.datetime" and not struck:
            struck.append(name)
            enter()

sys.meta_path.insert(0, StrikesInTheMiddle())
enter()
enter()
print(*outcomes, flush=True)
"""
    )

    assert program.hear() == "StoreError 1 1"
    holder.leave("L")
    assert programs.puppet().enters("L")
