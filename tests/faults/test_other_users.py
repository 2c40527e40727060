"""Root in a user's home leaves nothing there that the user can't use or clear up; and no file is opened to all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from localconc.sync import concurrency
from tests.faults.programs import Cast, Puppet, in_line, until
from tests.kit.systems import needs_fork

_USER = 65534

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to be another user as well"
)


@pytest.fixture
def home_of_a_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home in a place that the user can reach."""
    place = Path(tempfile.mkdtemp(prefix="user-"))
    place.chmod(0o755)
    os.chown(place, _USER, _USER)
    monkeypatch.setenv("LOCALCONC_HOME", str(place / "home"))
    yield place / "home"
    shutil.rmtree(place, ignore_errors=True)


#: Uses all that a test needs once, as root and in another home: Python's own files may be out of the user's reach.
_LOADS_EVERYTHING = """
import encodings.ascii, encodings.idna, encodings.latin_1, json, selectors, socket, sqlite3, tempfile, threading, uuid
home, os.environ["LOCALCONC_HOME"] = os.environ["LOCALCONC_HOME"], tempfile.mkdtemp()
localconc.ensure_limit("L", 1)
localconc.ensure_limit("L", 2)
localconc.update_limit("L", limit=1)
with sync.concurrency("L"):
    for seconds in (0, 1.2):
        try:
            sync.concurrency("L", timeout_seconds=seconds).__enter__()
        except TimeoutError:
            pass
with sync.concurrency(["L", "M"], limit=1):
    localconc.read_holders(), localconc.read_waiters(), localconc.read_limits()
pid = os.fork()
if pid == 0:
    sync.concurrency("L").__enter__()
    os._exit(0)
os.waitpid(pid, 0)
with sync.concurrency("L", timeout_seconds=5):
    pass
try:
    os.environ["LOCALCONC_HOME"] = "/dev/null"
    localconc.read_limits()
except localconc.StoreError:
    pass
os.environ["LOCALCONC_HOME"] = home
"""


def _user(programs: Cast) -> Puppet:
    """A process of the user."""
    puppet = programs.puppet()
    assert puppet.run(f"{_LOADS_EVERYTHING}os.setgroups([]); os.setgid({_USER}); os.setuid({_USER})") == "done"
    return puppet


@needs_fork
@needs_root
def test_the_user_gets_the_slot_of_root_that_was_killed(programs: Cast, home_of_a_user: Path) -> None:
    user = _user(programs)
    user.run("localconc.ensure_limit('L', 1)")
    root = programs.puppet()
    root.must_enter("L")
    assert not user.enters("L")

    root.kill()

    assert user.enters("L", timeout_seconds=3)


@needs_fork
@needs_root
def test_the_user_who_waits_gets_the_slot_of_root_that_is_killed(programs: Cast, home_of_a_user: Path) -> None:
    user = _user(programs)
    user.run("localconc.ensure_limit('L', 1)")
    root = programs.puppet()
    root.must_enter("L")
    user.begins_to_enter("L")
    until(lambda: in_line(home_of_a_user) == 1, "the user waits")

    root.kill()

    assert user.outcome("L", 4) == "done"


@needs_fork
@needs_root
def test_what_root_makes_in_the_home_of_a_user_belongs_to_the_user(programs: Cast, home_of_a_user: Path) -> None:
    user = _user(programs)
    home_of_a_user.mkdir(mode=0o700)
    os.chown(home_of_a_user, _USER, _USER)
    root = programs.puppet()
    root.run("localconc.ensure_limit('L', 1)")
    root.must_enter("L")

    assert {path.stat().st_uid for path in [home_of_a_user, *home_of_a_user.rglob("*")]} == {_USER}
    assert user.run("localconc.ensure_limit('M', 2); localconc.update_limit('L', limit=2)") == "done"
    assert user.enters("L")
    root.kill()
    assert user.enters("L", timeout_seconds=3, occupy=1)


@needs_fork
@needs_root
def test_the_user_can_use_a_store_that_root_was_the_first_to_use(programs: Cast, home_of_a_user: Path) -> None:
    home_of_a_user.mkdir(mode=0o700)
    os.chown(home_of_a_user, _USER, _USER)
    programs.python("from localconc import ensure_limit\nensure_limit('L', 1)").finish()
    user = _user(programs)

    assert user.run("localconc.ensure_limit('M', 2)") == "done"
    assert user.enters(["L", "M"])


@needs_fork
@needs_root
def test_root_that_lives_keeps_its_slot_against_the_user(programs: Cast, home_of_a_user: Path) -> None:
    user = _user(programs)
    user.run("localconc.ensure_limit('L', 1)")
    root = programs.puppet()
    root.must_enter("L")

    assert not user.enters("L", timeout_seconds=2)
    root.leave("L")
    assert user.enters("L", timeout_seconds=2)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are those of POSIX")
@pytest.mark.parametrize("is_in_use", [False, True])
@pytest.mark.parametrize("opened", ["localconc.db", "localconc.db*"])
def test_the_doctors_repair_leaves_no_file_open_to_all(
    opened: str, is_in_use: bool, programs: Cast, localconc_home_directory: Path
) -> None:
    programs.python("from localconc import ensure_limit\nensure_limit('L', 1)").finish()
    holder = programs.puppet()
    if is_in_use:
        holder.must_enter("L")
    for path in localconc_home_directory.glob(opened):
        path.chmod(0o666)

    programs.command("sh", "-c", 'umask 0; exec "$0" -m localconc doctor --repair', sys.executable).end(30)
    with concurrency("other", limit=1):
        pass

    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in localconc_home_directory.glob("*.*")}
    assert set(modes.values()) == {"0o600"}, modes


@needs_root
@needs_fork
def test_a_user_can_use_the_home_that_it_makes_with_the_strictest_umask(programs: Cast, home_of_a_user: Path) -> None:
    """It may read and write what root may in any case."""
    user = _user(programs)
    user.run(f"os.umask(0o777); os.environ['LOCALCONC_HOME'] = {str(home_of_a_user / 'further' / 'down')!r}")

    user.must_enter("L", limit=1)

    assert not user.enters("L")
    for made in (home_of_a_user, home_of_a_user / "further" / "down", home_of_a_user / "further" / "down" / "owners"):
        assert made.stat().st_mode & 0o777 == 0o700
