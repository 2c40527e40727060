"""Programs that replace sqlite3, os.environ, the clock or Python's own end; homes that nobody can name."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import localconc.asyncio
from localconc import create_limit, ensure_limit, home, read_limit, read_limits, update_limit
from localconc._engine.holding.releases import BackgroundReleases
from localconc.errors import StoreError
from localconc.sync import concurrency, rate_limit
from localconc.testing import virtual_clock
from tests.faults.programs import Cast, rows


def _needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (it is in the extra `test`)")


# ---- a wrapped sqlite3.connect ---------------------------------------------------------------------------------------

#: As instrumentation does (OpenTelemetry, ddtrace): the connection is wrapped, which SQLite's `backup` does not accept.
_WRAPS_CONNECT = """
import os, sqlite3, sys

class Proxy:
    def __init__(self, connection): self.connection = connection
    def __getattr__(self, name): return getattr(self.connection, name)

original = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: Proxy(original(*arguments, **options))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be deleted there")
def test_a_deleted_store_is_restored_by_a_program_whose_connections_are_wrapped(
    programs: Cast, localconc_home_directory: Path
) -> None:
    program = programs.python(
        _WRAPS_CONNECT
        + "import time\nfrom localconc.sync import concurrency\nfrom localconc import home, read_limits\n"
        "block = concurrency('L', limit=1); block.__enter__()\nprint('in', flush=True); sys.stdin.readline()\n"
        "while not (home() / 'localconc.db').exists(): read_limits(); time.sleep(0.01)\n"
        "print([limit.active_slots for limit in read_limits()], flush=True); sys.stdin.readline()"
    )
    assert program.hear() == "in"
    for path in localconc_home_directory.glob("localconc.db*"):
        path.unlink()
    program.say()

    assert program.hear() == "[1]"
    program.say()
    program.finish()


def test_no_module_opens_a_database_by_a_function_that_programs_wrap() -> None:
    package = Path(localconc.__file__).parent
    assert [path for path in package.rglob("*.py") if "sqlite3.connect(" in path.read_text()] == []


# ---- 25: another sqlite3 ---------------------------------------------------------------------------------------------


def test_a_program_that_replaced_sqlite3_by_pysqlite3_can_use_limits(programs: Cast) -> None:
    _needs("pysqlite3")
    program = programs.python(
        "import sys\n__import__('pysqlite3')\nsys.modules['sqlite3'] = sys.modules.pop('pysqlite3')\n"
        "import localconc\nfrom localconc.sync import concurrency\n"
        "with concurrency('L', limit=1):\n"
        "    try:\n"
        "        with concurrency('L', timeout_seconds=0.05): print('two hold it')\n"
        "    except TimeoutError: print('kept out', flush=True)\n"
        "with concurrency('L', timeout_seconds=1): print(localconc.read_limit('L').active_slots, flush=True)"
    )

    assert program.hear() == "kept out"
    assert program.hear() == "1"
    program.finish()


def test_a_program_that_replaced_sqlite3_shares_limits_with_one_that_did_not(programs: Cast) -> None:
    _needs("pysqlite3")
    holder = programs.puppet()
    holder.must_enter("L", limit=1)
    program = programs.python(
        "import sys\n__import__('pysqlite3')\nsys.modules['sqlite3'] = sys.modules.pop('pysqlite3')\n"
        "from localconc.sync import concurrency\nprint('ready', flush=True); sys.stdin.readline()\n"
        "with concurrency('L', timeout_seconds=5): print('in', flush=True)"
    )
    assert program.hear() == "ready"
    program.say()
    assert program.is_silent_for(0.5)
    holder.leave("L")

    assert program.hear() == "in"


def test_a_deleted_store_is_restored_by_a_program_that_replaced_sqlite3(
    programs: Cast, localconc_home_directory: Path
) -> None:
    _needs("pysqlite3")
    program = programs.python(
        "import sys, time\n__import__('pysqlite3')\nsys.modules['sqlite3'] = sys.modules.pop('pysqlite3')\n"
        "from localconc.sync import concurrency\nfrom localconc import home, read_limits\n"
        "block = concurrency('L', limit=1); block.__enter__()\nprint('in', flush=True); sys.stdin.readline()\n"
        "while not (home() / 'localconc.db').exists(): read_limits(); time.sleep(0.01)\n"
        "print([limit.active_slots for limit in read_limits()], flush=True); sys.stdin.readline()"
    )
    assert program.hear() == "in"
    for path in localconc_home_directory.glob("localconc.db*"):
        path.unlink()
    program.say()

    assert program.hear() == "[1]"
    assert not programs.puppet().enters("L")
    assert {path.stat().st_mode & 0o777 for path in localconc_home_directory.glob("localconc.db*")} == {0o600}
    program.say()
    program.finish()


# ---- 26: another os.environ ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [dict, lambda variables: os._Environ(*_raw(variables))])
def test_another_mapping_in_the_place_of_the_environment_names_the_home(
    kind: Callable[[dict[str, str]], Any], tmp_path: Path
) -> None:
    with concurrency("before", limit=1):
        pass

    with mock.patch("os.environ", kind({"LOCALCONC_HOME": str(tmp_path / "other")})):
        assert home() == tmp_path / "other"
        with concurrency("inside", limit=1):
            pass
        assert [limit.name for limit in read_limits()] == ["inside"]

    assert [limit.name for limit in read_limits()] == ["before"]


def _raw(variables: dict[str, str]) -> tuple[Any, ...]:
    raw = {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}
    return raw, os.fsencode, os.fsdecode, os.fsencode, os.fsdecode


def test_another_mapping_in_the_place_of_the_environment_switches_limits_off(localconc_home_directory: Path) -> None:
    ensure_limit("L", 1)
    with concurrency("L"):
        with (
            mock.patch("os.environ", {"LOCALCONC_HOME": str(localconc_home_directory), "LOCALCONC_DISABLED": "1"}),
            concurrency("L", timeout_seconds=0),
        ):
            pass
        with pytest.raises(TimeoutError), concurrency("L", timeout_seconds=0):
            pass


def test_a_cleared_environment_is_noticed(tmp_path: Path) -> None:
    variables = {"LOCALCONC_HOME": str(tmp_path / "other")}
    with mock.patch.dict(os.environ, variables), concurrency("inside", limit=1):
        assert [limit.name for limit in read_limits()] == ["inside"]
    with mock.patch.dict(os.environ, {**variables, "LOCALCONC_HOME": str(tmp_path / "third")}, clear=True):
        assert read_limits() == []


# ---- 27: no home -----------------------------------------------------------------------------------------------------

_ASKS_FOR_ITS_HOME = """
import encodings.ascii, os, pwd, sys
import localconc, localconc.sync
import platformdirs
localconc.home
try:
    localconc.read_limits()
except localconc.StoreError: pass
for name in ("LOCALCONC_HOME", "HOME", "XDG_DATA_HOME"): os.environ.pop(name, None)
os.environ.update(dict(pair.split("=", 1) for pair in sys.argv[2:]))
if sys.argv[1] != "-": os.setuid(int(sys.argv[1]))
os.chdir("/")
try:
    if sys.argv[1] == "-": print("in", localconc.home(), flush=True)  # it may be the real one, which no test may touch
    else:
        with localconc.sync.concurrency("L", limit=1): print("in", localconc.home(), flush=True)
except localconc.StoreError as error: print("StoreError", error, flush=True)
except Exception as error: print(type(error).__name__, error, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to be nobody")
def test_without_a_home_and_without_an_entry_among_the_users_there_is_a_clear_error(programs: Cast) -> None:
    said = programs.python(_ASKS_FOR_ITS_HOME, 54321).hear()

    assert said.startswith("StoreError"), said
    assert "LOCALCONC_HOME" in said


@pytest.mark.parametrize("variable", ["HOME=", "HOME=somewhere", "XDG_DATA_HOME=somewhere"])
def test_a_home_that_depends_on_the_working_directory_is_a_clear_error(variable: str, programs: Cast) -> None:
    """Or it is an absolute one that comes from elsewhere: the same in all working directories."""
    said = programs.python(_ASKS_FOR_ITS_HOME.replace('os.chdir("/")', 'os.chdir("/tmp")'), "-", variable).hear()

    if said.startswith("in "):
        assert said.split()[1].startswith("/")
        assert not said.split()[1].startswith(("/tmp", "/somewhere"))
    else:
        assert said.startswith("StoreError"), said
        assert "LOCALCONC_HOME" in said


# ---- 28: other clocks ------------------------------------------------------------------------------------------------

_FREEZERS = {
    "freezegun": "import freezegun\nfrozen = freezegun.freeze_time('2012-01-14')",
    "time_machine": "import time_machine\nfrozen = time_machine.travel(1_000_000_000.0, tick=False)",
}

_UNDER_A_FROZEN_CLOCK = """
{freezer}
import sys
{import_before}
frozen.start()
from localconc import ensure_limit, read_limit, read_holders
from localconc._engine.holding.releases import BackgroundReleases
from localconc.errors import StoreError
from localconc.sync import concurrency, rate_limit
{inside}
frozen.stop()
{after}
"""


def _frozen(programs: Cast, library: str, inside: str, after: str = "", *, imported_before: bool) -> list[str]:
    _needs(library)
    code = _UNDER_A_FROZEN_CLOCK.format(
        freezer=_FREEZERS[library],
        import_before="import localconc.sync, localconc.limits" if imported_before else "",
        inside=inside,
        after=after,
    )
    return programs.python(code).finish(12).splitlines()


libraries = pytest.mark.parametrize("library", list(_FREEZERS))
moments_of_import = pytest.mark.parametrize("imported_before", [True, False], ids=["imported before", "inside"])


@libraries
@moments_of_import
def test_a_time_out_ends_under_a_frozen_clock(library: str, imported_before: bool, programs: Cast) -> None:
    said = _frozen(
        programs,
        library,
        "with concurrency('L', limit=1):\n"
        "    for seconds in (0, 0.05, 0.5):\n"
        "        try:\n"
        "            with concurrency('L', timeout_seconds=seconds): print('two hold it')\n"
        "        except TimeoutError: print('kept out')",
        imported_before=imported_before,
    )

    assert said == ["kept out"] * 3


@libraries
@pytest.mark.parametrize("imported_before", [True, pytest.param(False, marks=pytest.mark.sweep)])
def test_a_rate_goes_on_under_a_frozen_clock_and_after_it(library: str, imported_before: bool, programs: Cast) -> None:
    began = time.monotonic()
    said = _frozen(
        programs,
        library,
        "for _ in range(5): rate_limit('api', limit=1, slot_decay_per_second=5)\nprint('inside')",
        "for _ in range(3): rate_limit('api')\nprint('after')",
        imported_before=imported_before,
    )

    assert said == ["inside", "after"]
    assert time.monotonic() - began > 7 / 5
    rate_limit("api", timeout_seconds=2)  # of a process that knows the real time only


@libraries
@pytest.mark.parametrize("imported_before", [pytest.param(True, marks=pytest.mark.sweep), False])
def test_after_a_frozen_clock_moments_are_real_ones(library: str, imported_before: bool, programs: Cast) -> None:
    (said,) = _frozen(
        programs,
        library,
        "with concurrency('L', limit=1): pass",
        "import time\n"
        "with concurrency('L'):\n"
        "    (holder,) = read_holders('L')\n"
        "    print(abs(holder.acquired_at.timestamp() - time.time()) < 60, read_limit('L').avg_slot_occupancy_seconds)",
        imported_before=imported_before,
    )

    real, average = said.split()
    assert real == "True"
    assert 0 < float(average) < 10


@libraries
def test_a_store_that_is_replaced_is_noticed_under_a_frozen_clock(library: str, programs: Cast) -> None:
    said = _frozen(
        programs,
        library,
        "import pathlib, localconc\n"
        "block = concurrency('L', limit=1); block.__enter__()\n"
        "for path in localconc.home().glob('localconc.db*'): path.unlink()\n"
        "import select; select.select([], [], [], 0.2)\n"
        "with concurrency('other', limit=1): pass\n"
        "print((localconc.home() / 'localconc.db').exists())",
        imported_before=True,
    )

    assert said == ["True"]


# ---- 29: one range of decays -----------------------------------------------------------------------------------------


def _by_command(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "localconc", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert "Traceback" not in done.stderr
    if done.returncode:
        raise ValueError(done.stderr)


def _by_import(decay: float, directory: Path) -> None:
    entry = {"name": "imported", "limit": 1, "active": True, "slot_decay_per_second": decay}
    (directory / "limits.json").write_text(json.dumps([entry]))
    _by_command("import", str(directory / "limits.json"))


def _by_task(decay: float, directory: Path) -> None:
    asyncio.run(localconc.asyncio.rate_limit("task", limit=1, slot_decay_per_second=decay))


def _by_update(decay: float, directory: Path) -> None:
    ensure_limit("updated", 1)
    update_limit("updated", slot_decay_per_second=decay)


def _by_block(decay: float, directory: Path) -> None:
    with concurrency("block", limit=1, slot_decay_per_second=decay):
        pass


WAYS_IN: dict[str, Callable[[float, Path], object]] = {
    "create_limit": lambda decay, _: create_limit("created", 1, slot_decay_per_second=decay),
    "ensure_limit": lambda decay, _: ensure_limit("ensured", 1, slot_decay_per_second=decay),
    "update_limit": _by_update,
    "concurrency": _by_block,
    "rate_limit": lambda decay, _: rate_limit("rate", limit=1, slot_decay_per_second=decay),
    "a task": _by_task,
    "the command line": lambda decay, _: _by_command(
        "create", "by-command", "--limit", "1", "--slot-decay-per-second", repr(decay)
    ),
    "an import": _by_import,
}


@pytest.mark.parametrize("way", list(WAYS_IN))
def test_a_decay_that_no_clock_can_resolve_is_refused_in_every_way_in(way: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1e\+?20"):
        WAYS_IN[way](1e20, tmp_path)


@pytest.mark.parametrize(
    "decay", [1e-30, pytest.param(1e-9, marks=pytest.mark.sweep), pytest.param(1e9, marks=pytest.mark.sweep), 1e12]
)
def test_every_way_in_knows_the_same_range(decay: float, tmp_path: Path) -> None:
    accepted = {}
    for way, goes_in in WAYS_IN.items():
        try:
            goes_in(decay, tmp_path)
            accepted[way] = True
        except ValueError:
            accepted[way] = False

    assert len(set(accepted.values())) == 1, accepted


@pytest.mark.parametrize("decay", [1e-6, 1e6])
def test_the_doctor_is_content_with_every_decay_that_is_accepted(decay: float) -> None:
    try:
        ensure_limit("api", 3, slot_decay_per_second=decay)
    except ValueError:
        return
    for _ in range(3):
        rate_limit("api", timeout_seconds=2)
    with concurrency("other", limit=1):
        _by_command("doctor")
    assert read_limit("api").active_slots <= 3


# ---- 31, 32: ends and races ------------------------------------------------------------------------------------------


_DROPPED_AT_THE_END = {
    "by the main function": (
        "def main():\n    block = concurrency('L'); block.__enter__()\n    return 0\nsys.exit(main())"
    ),
    "by a thread that ends later": (
        "def work():\n    block = concurrency('L'); block.__enter__()\n    time.sleep(0.2)\n"
        "threading.Thread(target=work).start()"
    ),
    "by what runs at exit": (
        "import atexit\nblocks = [concurrency('L')]; blocks[0].__enter__()\natexit.register(blocks.clear)"
    ),
}


@pytest.mark.parametrize("dropped", list(_DROPPED_AT_THE_END))
def test_a_block_that_is_dropped_at_the_end_of_the_program_is_given_back_by_it(
    dropped: str, programs: Cast, localconc_home_directory: Path
) -> None:
    """By itself, before it ends: nobody else has to find out that it is dead."""
    program = programs.python(
        "import sys, threading, time\nfrom localconc.sync import concurrency\n"
        "with concurrency('L', limit=1): pass\n" + _DROPPED_AT_THE_END[dropped]
    )
    program.finish()

    assert program.errors() == ""
    assert rows(localconc_home_directory, "owners") == 0
    assert list((localconc_home_directory / "owners").iterdir()) == []


def test_a_block_that_is_dropped_after_the_main_thread_ended_is_given_back_while_another_thread_goes_on(
    programs: Cast,
) -> None:
    """No new thread can be started then (Python 3.12): the slot must come back without one."""
    program = programs.python(
        "import sys, threading\nfrom localconc.sync import concurrency\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    block = concurrency('L', limit=1); block.__enter__()\n"
        "    del block\n"
        "    print('dropped', flush=True)\n"
        "    sys.stdin.read()\n"
        "threading.Thread(target=work).start()"
    )
    assert program.hear() == "dropped"

    assert programs.puppet().enters("L", timeout_seconds=2)
    assert program.process.poll() is None
    program.finish()
    assert program.errors() == ""


def test_what_is_forgotten_while_it_is_released_in_the_background_ends_that_in_good_order() -> None:
    """A fork or the end of the process comes in the middle of an attempt, which fails."""
    tried = []

    def undo(serial: int, limit_ids: tuple[int, ...] | None, ticket: int | None) -> None:
        tried.append(serial)
        releases.clear()
        raise StoreError("the store is gone")

    releases = BackgroundReleases(undo, list)
    releases._pending[1] = (None, None)

    releases._run(0)

    assert tried == [1]
    assert releases.pending() == []


def test_all_who_look_at_the_same_time_find_that_a_holder_is_dead(programs: Cast) -> None:
    """The look takes the lock for a moment: another one who looks then must not take that for life."""
    ensure_limit("L", 6)
    crowd = [programs.puppet() for _ in range(6)]
    for puppet in crowd:
        puppet.must_enter("other", limit=9)
    for _ in range(4):
        holder = programs.puppet()
        holder.must_enter("L", occupy=6)
        holder.kill()

        for puppet in crowd:
            puppet.tell("enter", "L", timeout_seconds=0)
        answers = [puppet.answer() for puppet in crowd]

        assert answers == ["done"] * 6
        for puppet in crowd:
            puppet.leave("L")


_TELLS_WHAT_IT_LOADS_IN_TRANSACTIONS = """
import sys
import localconc
from localconc._engine import registry
from localconc._engine.holding.releases import BackgroundReleases
from localconc.errors import StoreError
from localconc.sync import concurrency, rate_limit
with concurrency("other", limit=1): pass
database = registry.current().store.database
def notice(event, arguments):
    if event == "import" and database._connection is not None and database._connection.in_transaction:
        print(arguments[0], flush=True)
sys.addaudithook(notice)
block = concurrency("L", limit=1); block.__enter__()
for seconds in (0, 0.05):
    try:
        with concurrency("L", timeout_seconds=seconds): pass
    except TimeoutError as error: assert error.holders
localconc.pause_limit("L", 60)
try:
    with concurrency("L", timeout_seconds=0): pass
except TimeoutError: pass
localconc.delete_limit("L")
"""


def test_no_module_is_loaded_while_others_wait_for_the_store(programs: Cast) -> None:
    """Of six that were refused at once, five timed out: the first one's transaction loaded what shows a moment."""
    assert programs.python(_TELLS_WHAT_IT_LOADS_IN_TRANSACTIONS).finish() == ""


# ---- 33, 35: testing -------------------------------------------------------------------------------------------------


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_the_plugin_breaks_no_run_of_an_old_pytest(tmp_path: Path) -> None:
    root = Path(localconc.asyncio.__file__).parent.parent
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "pytest==7.0.1", "pluggy==1.0.0", str(root)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if "pytest" in done.stderr and "conflict" in done.stderr.lower():
        return  # a bound keeps them apart, which is right, too
    assert done.returncode == 0, done.stderr
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n")

    run = subprocess.run(
        [str(python), "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path / "test_one.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )

    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_a_virtual_clock_begins_at_this_very_moment() -> None:
    ensure_limit("api", 1000, slot_decay_per_second=100.0)
    for _ in range(6):
        before = time.monotonic()
        update_limit("api", active_slots=1000)
        with virtual_clock(autojump=False):
            occupied = read_limit("api").active_slots
            drained_really = (time.monotonic() - before) * 100
        assert occupied >= 1000 - drained_really - 2
        time.sleep(0.07)
