"""What is thrown into a thread, at whatever moment, costs no slot, no place in a queue, and no store.

`PyThreadState_SetAsyncExc` throws like this (so do tools that end threads), and a signal handler, into the main thread.
"""

from __future__ import annotations

import os
import select
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from localconc import ensure_limit, read_holders, read_waiters
from localconc._engine.waiting.timing import QUICK_POLL_SECONDS
from tests.faults.load import LOAD
from tests.faults.programs import Cast, in_line, until

#: Throws an exception as a function of the engine ends, or as one begins, and keeps its traceback.
_THROW = """
import sys
kept = []

def throw(when, name):
    def look(frame, event, argument):
        if event == when and frame.f_code.co_name == name:
            sys.setprofile(None)
            raise KeyboardInterrupt
    sys.setprofile(look)
    try:
        localconc.read_limits()
    except KeyboardInterrupt as error:
        kept.append(error)
    finally:
        sys.setprofile(None)

throw("return", "connect_in_place")  # whose connection the traceback keeps
throw("call", "_others_on")  # as the anchors of the next one are opened, which closes them
result = len(kept)
"""


#: Closes the store while a cursor of its connection lives, as one does that a traceback keeps.
_KEEP_CURSOR = """
from localconc._engine import registry
localconc.ensure_limit("M", 1)
database = registry.current().store.database
cursor = database._connection.execute("SELECT name FROM limits")
result = cursor.fetchone()
database.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the descriptors of a process, in /proc")
@pytest.mark.parametrize("kept", [_THROW, _KEEP_CURSOR], ids=["connection", "cursor"])
def test_a_traceback_that_keeps_a_connection_leaves_no_files_open_that_others_take_away(
    kept: str, programs: Cast
) -> None:
    """A later connection shared the log's index with the kept one, whose locks had been dropped."""
    programs.python("import localconc\nlocalconc.ensure_limit('L', 1)").finish()
    struck = programs.puppet()
    assert struck.run(kept) in (2, ["L"])
    other = programs.puppet()
    other.must_enter("L")
    other.leave("L")
    other.finish()  # it takes itself for the last one, and the log away

    struck.must_enter("L")

    links = [os.readlink(f"/proc/{struck.pid}/fd/{each}") for each in os.listdir(f"/proc/{struck.pid}/fd")]
    ours = [link for link in links if "localconc.db" in link]
    assert ours
    assert not [link for link in ours if link.endswith(" (deleted)")]
    assert not programs.puppet().enters("L")
    struck.leave("L")
    for _ in range(3):
        struck.do("run", "from localconc._engine import registry\nregistry.current().store.database.close()")
        struck.must_enter("L")
        struck.leave("L")
    assert len(os.listdir(f"/proc/{struck.pid}/fd")) <= len(links), "each closing leaves something open"
    assert programs.puppet().enters("L")


#: Lets the first thread that releases in the background end as one does into which something is thrown at once.
_STRIKE_BACKGROUND = """
import sys
from localconc._engine.holding.releases import BackgroundReleases
run, first = BackgroundReleases._run, [True]

def struck(*arguments):
    if first and first.pop():
        raise SystemExit
    run(*arguments)

BackgroundReleases._run = struck
from localconc.sync import concurrency
block = concurrency("L", limit=1)
block.__enter__()
del block
print("dropped", flush=True)
sys.stdin.read()
"""


def test_what_is_thrown_into_the_thread_that_releases_a_dropped_block_leaves_no_slot_taken(programs: Cast) -> None:
    """It has the number of a thread that has ended, for which the exception was meant."""
    assert programs.python(_STRIKE_BACKGROUND).hear() == "dropped"

    assert programs.puppet().enters("L", timeout_seconds=5)


def _survives(programs: Cast, home: Path, seconds: float, pause_seconds: float) -> int:
    """Let things be thrown into two processes; return how many times their threads got in."""
    ensure_limit("api", 2)
    crowd = [programs.python(LOAD, seconds, "thrown", pause_seconds) for _ in range(2)]
    reports = [program.hear(seconds + 30).rpartition(" ") for program in crowd]

    assert [words for words, *_ in reports] == ["well", "well"]
    until(lambda: not read_holders() and not read_waiters(), "nobody is left")
    assert in_line(home) == 0
    assert programs.puppet().enters("api", timeout_seconds=5)
    for program in crowd:
        program.finish()
    with closing(sqlite3.connect(home / "localconc.db")) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return sum(int(count) for *_, count in reports)


def test_what_is_thrown_into_threads_leaves_nothing_behind(programs: Cast, localconc_home_directory: Path) -> None:
    """Where no process can wake another's waiter, a waiter finds its grant by a poll; so it gets the time for one."""
    pause_seconds = 0.005 if hasattr(select, "poll") else 2 * QUICK_POLL_SECONDS
    assert _survives(programs, localconc_home_directory, 1.5, pause_seconds) > 10


@pytest.mark.sweep
def test_what_is_thrown_into_threads_for_long_leaves_nothing_behind(
    programs: Cast, localconc_home_directory: Path
) -> None:
    assert _survives(programs, localconc_home_directory, 25.0, 0.01) > 10


@pytest.mark.sweep
@pytest.mark.parametrize("which", range(40))
def test_what_is_thrown_into_threads_that_open_the_store_leaves_it_whole(
    which: int, programs: Cast, localconc_home_directory: Path
) -> None:
    """One in thirty such starts damaged the store."""
    _survives(programs, localconc_home_directory, 0.5, 0.002)
