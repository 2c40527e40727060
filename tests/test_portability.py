"""What other systems need, as far as Linux can show it; see `.ci/portable-tests`, too."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import localconc
from localconc import create_limit, read_holders, read_limit
from localconc._engine import registry
from localconc._engine.homes import filesystems
from localconc._engine.liveness import owner
from localconc._engine.liveness.systems import macos
from localconc._engine.store import recovery
from localconc._engine.store.files import anchors
from localconc.errors import StoreError
from localconc.sync import concurrency

from .kit.processes import Worker, crew

VERSION_1 = Path(__file__).parent / "stores" / "version1"
SYSTEMS = Path(__file__).parent / "systems"

#: Modules for one system alone, which nothing imports elsewhere.
OF_ONE_SYSTEM = (
    "localconc._engine.liveness.systems.windows",
    "localconc._engine.liveness.systems.inotify",
    "localconc.__main__",
)

IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
import os
assert not hasattr(os, "pidfd_open")
print(len(sys.argv) - 1)
"""

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="takes away what only Linux has")


def modules() -> list[str]:
    root = Path(localconc.__file__).parent
    parts = [path.relative_to(root.parent).with_suffix("").parts for path in sorted(root.rglob("*.py"))]
    names = [".".join(each).removesuffix(".__init__") for each in parts]
    return [name for name in names if name not in OF_ONE_SYSTEM and not name.startswith("localconc._prefect")]


@needs_linux
@pytest.mark.parametrize("system", ["macos", "bare"])
def test_each_module_loads_where_what_the_system_lacks_is_gone(system: str) -> None:
    environment = {**os.environ, "LOCALCONC_TEST_SYSTEM": system, "PYTHONPATH": str(SYSTEMS)}
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *modules()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 100


# ---- Windows ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_files_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, nothing is deleted or replaced while it is open; so nothing is held open but by SQLite."""
    for module in (anchors, recovery):
        monkeypatch.setattr(module, "OPEN_FILES_CAN_MOVE", False)


def open_paths() -> list[str]:
    paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(path) for path in paths if os.path.exists(path))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs a list of descriptors")
@pytest.mark.usefixtures("open_files_stay")
def test_where_open_files_stay_nothing_but_sqlite_has_the_database_open(localconc_home_directory: Path) -> None:
    with concurrency("db", limit=1):
        assert read_limit("db").active_slots == 1
        assert open_paths().count(str(localconc_home_directory / "localconc.db")) == 1
    assert read_limit("db").active_slots == 0


@pytest.mark.usefixtures("open_files_stay")
def test_where_open_files_stay_an_older_store_is_closed_before_the_new_one_takes_its_place(
    localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lay_version_1(localconc_home_directory)
    database = localconc_home_directory / "localconc.db"
    replace, at_replacing = os.replace, []

    def note(source: Path, target: Path) -> None:
        if Path(target) == database and os.path.exists("/proc/self/fd"):
            at_replacing.append(str(database) in open_paths())
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    names = [limit.name for limit in localconc.read_limits()]
    assert names
    assert True not in at_replacing
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() != (1,)
    connection.close()


@pytest.mark.usefixtures("open_files_stay")
def test_where_open_files_stay_an_older_store_is_not_taken_over_beside_others(localconc_home_directory: Path) -> None:
    with crew() as workers:
        workers.append(Worker("db", limit=1))
        workers[0].wait_inside()
        registry.forget(localconc_home_directory)
        for suffix in ("", "-wal", "-shm"):
            (localconc_home_directory / f"localconc.db{suffix}").unlink(missing_ok=True)
        _lay_version_1(localconc_home_directory)
        with pytest.raises(StoreError, match=rf"older version.*pids {workers[0].pid}\).*end them"):
            localconc.read_limits()
        workers[0].kill()
    assert localconc.read_limits()


def _lay_version_1(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(VERSION_1 / "in_use.db", directory / "localconc.db")
    os.chmod(directory / "localconc.db", 0o600)


def test_the_pid_of_an_owner_is_read_without_the_byte_that_is_locked(
    localconc_home_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_limit("db", 1)
    with crew() as workers:
        workers.append(Worker("db"))
        workers[0].wait_inside()
        monkeypatch.setattr(owner, "_PID_AT", 1)
        assert workers[0].pid in owner.living(localconc_home_directory, "").values()
        assert [holder.pid for holder in read_holders("db")] == [workers[0].pid]


# ---- macOS -----------------------------------------------------------------------------------------------------------


def description(status: int, seconds: int, microseconds: int) -> bytes:
    """A `struct proc_bsdinfo` as its header lays it out."""
    fields = struct.pack("=10I", 0, status, 0, 4242, 1, 501, 20, 501, 20, 501)
    rest = struct.pack("=2I16s32s5Ii2Q", 20, 0, b"python", b"python3.14", 3, 1, 1, 0, 0, 0, seconds, microseconds)
    return fields + rest


def test_macos_tells_when_a_process_started_and_whether_it_is_stopped() -> None:
    info = description(4, 1_700_000_000, 123_456)
    assert len(info) == 136
    assert macos.started_in(info) == "1700000000123456"
    assert [macos.state_in(description(status, 0, 0)) for status in (2, 3, 4, 5)] == ["R", "S", "T", "Z"]
    assert (macos.started_in(b""), macos.state_in(b"")) == ("", "")


@pytest.mark.parametrize(
    ("flags", "kind", "is_network"), [(0x1000, b"apfs", False), (0, b"smbfs", True), (0, b"macfuse", True)]
)
def test_macos_tells_which_filesystem_is_not_local(flags: int, kind: bytes, is_network: bool) -> None:
    numbers = struct.pack("=Ii5Q2i4I", 4096, 4096, 1, 1, 1, 1, 1, 0, 0, 501, 26, flags, 0)
    statfs = (numbers + kind.ljust(16, b"\0")).ljust(2168, b"\0")
    assert filesystems.is_network_filesystem(filesystems.type_in(statfs)) is is_network
    assert filesystems.type_in(b"") == ""
