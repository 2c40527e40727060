"""The command line: whether all is well, and putting it in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from localconc import create_limit, read_limit, read_limits
from localconc._engine import registry
from localconc._engine.operations import doctor
from localconc._engine.operations.doctor import Finding
from localconc.cli.commands import doctor as doctor_module
from localconc.cli.program import run
from tests.kit.command_line import COMMAND, localconc, ok, running, until


def _checks(*options: str, status: int) -> dict[str, dict[str, str]]:
    """What the doctor finds, by what was looked at; the worst where there are several."""
    result = localconc("doctor", "-o", "json", *options)
    assert result.returncode == status, result
    examined = json.loads(result.stdout)
    assert examined["well"] == (status == 0)
    order = ["well", "note", "wrong"]
    return {one["check"]: one for one in sorted(examined["findings"], key=lambda one: order.index(one["state"]))}


def _wrong(*options: str) -> dict[str, str]:
    """What is wrong, by what was looked at; each with something to do about it."""
    found = [one for one in _checks(*options, status=1).values() if one["state"] == "wrong"]
    assert found
    assert all(one["remedy"] for one in found)
    return {one["check"]: one["text"] for one in found}


def _repairs() -> None:
    result = localconc("doctor", "--repair")
    assert result.returncode == 0, result
    assert "repaired" in result.stderr
    assert result.stdout.endswith("All is well.\n")


@pytest.fixture
def store(localconc_home_directory: Path) -> Path:
    """A store with two limits that this process does not use any more."""
    create_limit("gpu", 2)
    create_limit("api", 10, slot_decay_per_second=0.5)
    registry.forget(localconc_home_directory)
    return localconc_home_directory / "localconc.db"


def test_nothing_there_yet_is_well_and_stays_so(localconc_home_directory: Path) -> None:
    assert "no home" in ok("doctor")
    assert not localconc_home_directory.exists()


def test_a_home_that_could_not_be_made_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOCALCONC_HOME", str(tmp_path / "file" / "home"))
    assert "none can be made" in _wrong()["path"]


#: Lets even root be denied what the mode of a file denies.
_WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root, and setpriv")
def test_a_home_or_a_database_without_access_is_found_and_not_taken_for_damage(store: Path) -> None:
    def doctor(*options: str) -> str:
        words = [*_WITHOUT_PRIVILEGES, *COMMAND, "doctor", *options]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30).stdout

    store.chmod(0)
    assert re.search("WRONG +permissions", doctor())
    assert "damaged" not in doctor("--repair")
    store.chmod(0o600)
    store.parent.chmod(0)
    assert re.search("WRONG +permissions .*You do not have permission to use the home", doctor("--repair"))
    store.parent.chmod(0o700)
    assert ok("doctor").endswith("All is well.\n")


def test_a_sound_home_is_well_in_every_respect(store: Path) -> None:
    text = ok("doctor")
    assert str(store) in text
    assert set(_checks(status=0)) == {
        "path",
        "definitions",
        "filesystem",
        "permissions",
        "version",
        "integrity",
        "owners",
        "totals",
        "size",
    }


def test_looking_changes_nothing(store: Path) -> None:
    with running("run", "gpu", "--", "sh", "-c", "echo in; read line") as holder:
        holder.read_line()
        holder.process.kill()
        holder.close()
        before = sorted(path.name for path in store.parent.rglob("*.lock"))
        localconc("doctor")
        assert sorted(path.name for path in store.parent.rglob("*.lock")) == before


def test_a_process_that_was_killed_is_found_and_cleared_up_after(store: Path) -> None:
    with running("run", "gpu", "--", "sh", "-c", "echo $$; read line") as holder:
        pid = int(holder.read_line())
        until(lambda: [held["pid"] for held in json.loads(ok("inspect", "gpu", "-o", "json"))["holders"]] == [pid])
        holder.process.kill()
        holder.wait()
        assert _checks(status=0)["owners"]["state"] == "well"  # its command lives on
        holder.write_line()
        until(lambda: not Path(f"/proc/{pid}").exists())
    assert str(pid) in _wrong()["owners"]
    _repairs()
    assert read_limit("gpu").active_slots == 0


def test_totals_that_differ_are_found_and_counted_anew(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE slots SET slots = 2 WHERE owner_id = 0")
    assert "'gpu' counts 2" in _wrong()["totals"] or "'api' counts 2" in _wrong()["totals"]
    _repairs()
    assert read_limit("gpu").active_slots == 0


def test_holders_that_nobody_knows_are_found_and_released(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(
            "INSERT INTO slots (limit_id, owner_id, serial, slots, acquired_wall, acquired_boot) "
            "SELECT id, 999, 1, 1, 0, 0 FROM limits WHERE name = 'gpu'"
        )
    assert "no process" in _wrong()["totals"]
    _repairs()
    assert read_limit("gpu").active_slots == 0


def test_places_in_a_queue_that_are_nobodys_are_found_and_removed(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("INSERT INTO queue (limit_id, ticket) SELECT id, 999 FROM limits WHERE name = 'gpu'")
    assert "queues" in _wrong()
    _repairs()
    ok("run", "gpu", "--timeout", "0", "--", "true")


def test_a_damaged_database_is_found_and_built_anew_with_the_same_limits(store: Path) -> None:
    content = store.read_bytes()
    store.write_bytes(content[:1024] + os.urandom(len(content) - 1024))
    assert "damaged" in _wrong()["integrity"]
    _repairs()
    assert [(limit.name, limit.limit) for limit in read_limits()] == [("api", 10), ("gpu", 2)]
    assert "set aside" in ok("doctor")


@pytest.mark.parametrize("content", [b"", b"no database " * 100])
def test_what_is_no_database_of_ours_is_found_and_replaced(store: Path, content: bytes) -> None:
    store.write_bytes(content)
    assert "damaged" in _wrong()["integrity"]
    _repairs()
    assert [limit.name for limit in read_limits()] == ["api", "gpu"]


def test_a_directory_in_place_of_the_database_is_found_and_replaced(store: Path) -> None:
    store.unlink()
    store.mkdir(mode=0o700)
    assert "no file" in _wrong()["integrity"]
    _repairs()
    assert [limit.name for limit in read_limits()] == ["api", "gpu"]


@pytest.mark.parametrize("part", ["table queue", "trigger counted", "view rate_calls"])
def test_missing_tables_and_triggers_are_found(store: Path, part: str) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(f"DROP {part}")
    kind, name = part.split()
    assert f"the {kind} '{name}' is missing" in _wrong()["integrity"]


def test_what_could_not_be_repaired_is_not_said_to_be(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("size", "wrong", "It is too large.", "--repair does nothing.", lambda engine: None)
    monkeypatch.setattr(doctor, "examine", lambda directory: [finding])
    said = []
    monkeypatch.setattr(doctor_module, "say", said.append)
    assert run(["doctor", "--repair"]) == 1
    assert said == ["not repaired: It is too large."]


def test_an_older_version_is_brought_up_to_date_at_the_next_use(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("PRAGMA user_version = 1")
    found = {finding.check: finding for finding in doctor.examine(store.parent)}
    assert found["version"].state == "note"
    assert "older" in found["version"].text


def test_permissions_for_others_are_found_and_taken_away(store: Path) -> None:
    store.chmod(0o644)
    store.parent.chmod(0o755)
    assert str(store) in _wrong()["permissions"]
    _repairs()
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.parent.stat().st_mode) == 0o700


def test_a_home_that_is_shared_with_a_group_is_well(localconc_home_directory: Path) -> None:
    localconc_home_directory.mkdir(mode=0o770)
    localconc_home_directory.chmod(0o2770)
    create_limit("gpu", 2)
    assert "the group" in _checks(status=0)["permissions"]["text"]


def test_a_newer_version_is_found(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")
    assert "newer" in _wrong()["version"]
    assert localconc("doctor", "--repair").returncode == 1


def test_a_database_that_is_a_link_is_found(store: Path) -> None:
    store.rename(store.with_name("elsewhere.db"))
    store.symlink_to(store.with_name("elsewhere.db"))
    assert "symbolic link" in _wrong()["database"]


def test_a_home_that_is_a_file_is_found(localconc_home_directory: Path) -> None:
    localconc_home_directory.write_text("")
    assert "not a directory" in _wrong()["path"]


def test_a_database_that_is_gone_is_told_of(store: Path) -> None:
    for path in store.parent.glob("localconc.db*"):
        path.unlink()
    assert "2 limit" in _checks(status=0)["database"]["text"]


@pytest.mark.sweep
def test_a_store_of_mostly_nothing_is_found_and_compacted(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("CREATE TABLE ballast (content BLOB)")
        connection.execute("INSERT INTO ballast VALUES (zeroblob(70 * 1024 * 1024))")
        connection.execute("DROP TABLE ballast")
    assert "unused" in _wrong()["size"]
    _repairs()
    assert store.stat().st_size < 2**20


def test_definitions_that_are_not_kept_beside_the_database_are_written_there(store: Path) -> None:
    journal = store.with_name("definitions.jsonl")
    journal.write_text("garbage\n")
    assert _wrong() == {
        "definitions": "2 limit(s) are not written beside the database as they are, in definitions.jsonl."
    }
    _repairs()
    store.write_bytes(b"damage" * 1000)
    assert [limit.name for limit in read_limits()] == ["api", "gpu"]
