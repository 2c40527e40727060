"""Processes of version 1 that still run as this version takes their store over (see tests/kit/version1)."""

from __future__ import annotations

import itertools
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

import localconc
from localconc import read_history, read_holders, read_limit
from tests.faults.programs import Cast, Program, Puppet, cpu_seconds, in_line, until
from tests.kit import version1
from tests.kit.processes import peak_overlap

LIMIT = 3

#: Acquires again and again until the store is too new for it, or until it is told to end; tells when it held.
_WORK = """
import select, sys, time
import localconc
from localconc.errors import StoreError
from localconc.sync import concurrency

print(localconc.__version__, flush=True)
ended = "told"
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        with concurrency("work", limit=int(sys.argv[1])):
            begun = time.monotonic()
            time.sleep(0.002)
            print(begun, time.monotonic(), flush=True)
    except StoreError as error:
        ended = str(error)
        break
print("ended", ended, flush=True)
sys.stdin.read()
"""

_OPEN_AT_ONCE = """
import os, sys, time
import localconc.sync

os.environ["LOCALCONC_HOME"] = sys.argv[1]
reading, writing = os.pipe()
pids = []
for _ in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)  # they begin as the pipe is closed
        try:
            with localconc.sync.concurrency("database", timeout_seconds=50):
                begun = time.monotonic()
                time.sleep(0.001)
                ended = time.monotonic()
            os.write(1, f"{begun} {ended}\\n".encode())
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    pids.append(pid)
os.close(writing)
sys.exit(any([os.waitpid(pid, 0)[1] for pid in pids]))
"""


@pytest.fixture
def old(programs: Cast, localconc_home_directory: Path) -> Puppet:
    """A process of version 1 with the store open."""
    puppet = programs.puppet(env=version1.environment())
    assert puppet.evaluate("localconc.__version__") == "0.1.0"
    puppet.must_enter("elsewhere", limit=1)
    assert version1.version_of(localconc_home_directory) == 1
    return puppet


def test_what_a_process_of_version_1_holds_is_free_once_it_has_died(old: Puppet, programs: Cast) -> None:
    old.must_enter("gpu", limit=1)
    new = programs.puppet()
    assert not new.enters("gpu")
    assert [holder.pid for holder in read_holders("gpu")] == [old.own_pid]
    old.leave("gpu")  # it can't say so in the new store
    assert not new.enters("gpu")
    old.kill()
    assert new.enters("gpu", timeout_seconds=5)
    assert [each.pid for each in read_history("gpu")] == [old.own_pid, new.own_pid]


def test_a_call_of_version_1_says_that_the_store_is_newer(old: Puppet) -> None:
    read_limit("elsewhere")
    for _ in range(2):
        kind, words = old.do("enter", "gpu", limit=1)
        assert (kind, "version 2, newer than this localconc understands (1)" in words) == ("StoreError", True), words


def test_a_waiter_of_version_1_is_told_that_the_store_is_newer(
    old: Puppet, programs: Cast, localconc_home_directory: Path
) -> None:
    old.must_enter("gpu", limit=1)
    waiter = programs.puppet(env=version1.environment())
    waiter.begins_to_enter("gpu")
    until(lambda: in_line(localconc_home_directory) == 1, "it waits")
    read_limit("gpu")
    kind, words = waiter.outcome("gpu")
    assert (kind, "newer" in words) == ("StoreError", True), words


@pytest.mark.parametrize("state", ["former", "present"])
def test_a_store_is_not_taken_over_while_a_process_reads_for_long(
    state: str, old: Puppet, programs: Cast, localconc_home_directory: Path
) -> None:
    """Its tables were gone, but it was still in its place: processes of version 1 said that it was damaged."""
    old.must_enter("gpu", limit=1)
    with closing(sqlite3.connect(localconc_home_directory / "localconc.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM slots").fetchall()
        if state == "former":
            old.leave("gpu")
            old.must_enter("gpu", limit=1)
        new = programs.puppet()
        began = cpu_seconds(new.own_pid)
        new.begins_to_enter("new", limit=1, timeout_seconds=30)
        until(lambda: cpu_seconds(new.own_pid) > began + 0.1, "it has tried several times")
        for _ in range(100):
            old.leave("gpu")
            old.must_enter("gpu", limit=1)
        assert version1.version_of(localconc_home_directory) == 1
        reader.execute("COMMIT")
        assert new.outcome("new") == "done"
    assert version1.version_of(localconc_home_directory) == 2
    assert not new.enters("gpu")


def _held(program: Program) -> tuple[list[tuple[float, float]], str]:
    """When a process held a slot, and why it ended."""
    holds = []
    while not (line := program.hear()).startswith("ended"):
        begun, ended = map(float, line.split())
        holds.append((begun, ended))
    return holds, line


def test_nobody_is_admitted_too_many_while_both_versions_run(
    programs: Cast, localconc_home_directory: Path, tmp_path: Path
) -> None:
    olds = [programs.python(_WORK, LIMIT, env=version1.environment(), cwd=tmp_path) for _ in range(4)]
    for each in olds:
        assert each.hear() == "0.1.0"
        each.hear()  # it has held once
    assert version1.version_of(localconc_home_directory) == 1
    news = [programs.python(_WORK, LIMIT) for _ in range(4)]
    ends = [_held(each) for each in olds]
    assert [why for _, why in ends if "newer" not in why] == []
    for each in olds:
        each.kill()
    assert version1.version_of(localconc_home_directory) == 2
    for each in news:
        assert each.hear() == localconc.__version__
        each.hear()
        each.say("end")
    ends += [_held(each) for each in news]
    assert {why for _, why in ends[4:]} == {"ended told"}
    assert peak_overlap([hold for holds, _ in ends for hold in holds]) <= LIMIT


# ---- killed while it takes the store over, with a process of version 1 beside it -------------------------------------

#: Takes the store over, and is killed as it comes to a statement, or after it: the one with a number, or with a text.
_MIGRATE = """
import os, signal, sqlite3, sys

which, when, times = sys.argv[1:]
counted = matched = 0
original = sqlite3.Connection


class Connection(sqlite3.Connection):
    def run(self, method, statement, *arguments):
        global counted, matched
        counted += 1
        matched += which == str(counted) or statement.strip().startswith(which)
        is_it = matched == int(times)
        if is_it and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        cursor = method(self, statement, *arguments)
        if is_it and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return cursor

    def execute(self, *arguments):
        return self.run(original.execute, *arguments)

    def executemany(self, *arguments):
        return self.run(original.executemany, *arguments)


sqlite3.Connection = Connection
import localconc
localconc.read_limits()
"""


_READ = """
import time
while True:
    localconc.read_limits()
    time.sleep(0.002)
"""


def _strike(old: Puppet, programs: Cast, which: str, when: str, times: int = 1) -> int:
    """Kill a process at a statement as it takes the store over; return the version of the store that is there then.

    Args:
        which: the number of the statement, or how it begins.
        times: how often such a statement comes until then.

    The old process uses the store all the while: it looks only now and then whether another file is in its place.
    """
    assert old.do("begin", "reading", "run", _READ) == "done"
    new = programs.puppet()
    programs.python(_MIGRATE, which, when, times).end()
    old_is_in = old.do("enter", "gpu", limit=1, timeout_seconds=0) == "done"
    version = version1.version_of(Path(old.evaluate("localconc.home()")))
    assert not new.enters("elsewhere")  # the old one holds it
    assert new.enters("gpu", limit=1) != old_is_in
    old_is_in = old.do("enter", "other", limit=1, timeout_seconds=0) == "done"
    assert new.enters("other", limit=1) != old_is_in
    new.kill()
    return version


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("which", "times"),
    [
        ("PRAGMA user_version = 2", 1),
        ("COMMIT", 1),  # of the new store
        ("DROP TABLE slots", 1),
        ("COMMIT", 2),  # of the old one
        ("PRAGMA wal_checkpoint(FULL)", 3),
    ],
)
def test_a_kill_amid_the_takeover_lets_nobody_in_beside_a_holder_of_version_1(
    which: str, times: int, when: str, old: Puppet, programs: Cast
) -> None:
    assert _strike(old, programs, which, when, times) == 1


@pytest.mark.sweep
@pytest.mark.timeout(1800)
def test_a_kill_at_each_statement_of_the_takeover_lets_nobody_in_beside_a_holder_of_version_1(
    tmp_path: Path, programs: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in itertools.count(1):
        monkeypatch.setenv("LOCALCONC_HOME", str(tmp_path / f"home-{number}"))
        old = programs.puppet(env=version1.environment())
        old.must_enter("elsewhere", limit=1)
        if _strike(old, programs, str(number), "before") == 2:
            assert number > 50
            return
        old.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
@pytest.mark.sweep
def test_a_hundred_processes_take_a_store_over_once(programs: Cast, localconc_home_directory: Path) -> None:
    home = version1.make_home(localconc_home_directory)
    crowd = programs.python(_OPEN_AT_ONCE, home, 100)
    status, said = crowd.end(60)
    assert status == 0, crowd.errors()
    holds = [tuple(map(float, line.split())) for line in said.splitlines()]
    assert len(holds) == 100
    assert peak_overlap([(begun, ended) for begun, ended in holds]) <= 5
    assert version1.version_of(home) == 2
    assert {limit: read_limit(limit).limit for limit in version1.DEFINITIONS} == {
        name: slots for name, (slots, _, _) in version1.DEFINITIONS.items()
    }
    assert len([each for each in read_history("database") if each.ending == "released"]) >= 100
    assert list(home.glob("*.damaged-*")) == []
