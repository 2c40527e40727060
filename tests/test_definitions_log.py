"""The definitions beside the database, which outlive it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest

from localconc._engine.homes import home
from localconc._engine.store import definitions_log as log
from localconc.errors import StoreError
from tests.kit.systems import needs_fork

as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    home.prepare(made)
    return made


def definition(name: str = "db", **changes: Any) -> dict[str, Any]:
    fields = {
        "name": name,
        "id": str(uuid5(NAMESPACE_DNS, ascii(name))),
        "limit": 3,
        "active": True,
        "slot_decay_per_second": 0.0,
        "created": 1.5,
    }
    return fields | changes


def path_of(directory: Path) -> Path:
    return directory / home.DEFINITIONS_LOG_NAME


def test_the_last_definition_of_a_name_counts(directory: Path) -> None:
    first, second, other = definition(limit=3), definition(limit=4), definition("other")
    log.append(directory, [first, other])
    log.append(directory, [second])
    assert log.replay(directory) == {"db": second, "other": other}


def test_a_deleted_limit_is_not_defined(directory: Path) -> None:
    log.append(directory, [definition(), {"name": "db", "deleted": True}])
    assert log.replay(directory) == {}


def test_without_a_log_nothing_is_defined(directory: Path) -> None:
    assert log.replay(directory) == {}


def test_a_line_that_its_writer_did_not_finish_spoils_no_other(directory: Path) -> None:
    first, second = definition("first"), definition("second")
    log.append(directory, [first])
    with open(path_of(directory), "ab") as file:
        file.write(b'{"name": "half')
    log.append(directory, [second])
    assert log.replay(directory) == {"first": first, "second": second}


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"\xff\xfe",
        b"[1, 2]",
        b"[" * 100_000,
        b'{"name": 7}',
        b'{"name": "a/b", "deleted": true}',
        b'{"name": "db"}',
        json.dumps(definition(id="x")).encode(),
        json.dumps(definition(limit=-1)).encode(),
        json.dumps(definition(limit="many")).encode(),
        json.dumps(definition(created=float("nan"))).encode(),
        json.dumps(definition(name="caf\udce9")).encode(),
    ],
)
def test_a_damaged_line_is_skipped(directory: Path, line: bytes) -> None:
    sound = definition("sound")
    path_of(directory).write_bytes(line + b"\n" + json.dumps(sound).encode() + b"\n")
    assert log.replay(directory) == {"sound": sound}


def test_a_decay_that_an_earlier_version_accepted_comes_back_within_the_range(directory: Path) -> None:
    log.append(
        directory, [definition("fast", slot_decay_per_second=1e20), definition("slow", slot_decay_per_second=1e-12)]
    )
    decays = {name: entry["slot_decay_per_second"] for name, entry in log.replay(directory).items()}
    assert decays == {"fast": 1e9, "slow": 1e-9}


def test_a_log_that_is_mostly_history_is_rewritten(directory: Path) -> None:
    last = definition(limit=9)
    log.append(directory, [definition(limit=number % 5) for number in range(log.REWRITE_LINES)])
    log.append(directory, [last])
    assert not log.rewrite_if_long(directory, lambda: log.REWRITE_LINES)
    assert log.rewrite_if_long(directory, lambda: 1)
    assert log.replay(directory) == {"db": last}
    assert len(path_of(directory).read_bytes().splitlines()) == 1
    assert not log.rewrite_if_long(directory, lambda: 1)


def test_a_log_that_is_not_there_is_not_rewritten(directory: Path) -> None:
    assert not log.rewrite_if_long(directory, lambda: 0)


@as_root
def test_a_log_that_root_writes_in_a_users_home_belongs_to_the_user(directory: Path) -> None:
    os.chown(directory, 65534, 65534)
    log.append(directory, [definition(limit=number) for number in range(log.REWRITE_LINES)])
    assert path_of(directory).stat().st_uid == 65534
    assert log.rewrite_if_long(directory, lambda: 1)
    assert path_of(directory).stat().st_uid == 65534
    assert path_of(directory).stat().st_mode & 0o777 == 0o600


@needs_fork
@as_root
def test_a_log_that_this_user_may_not_write_is_explained(directory: Path) -> None:
    log.append(directory, [definition()])
    os.chmod(directory, 0o755)
    os.chmod(directory.parent, 0o755)
    pipe, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.chdir(directory)  # which that user could not reach
        os.setuid(65534)
        try:
            log.append(Path("."), [definition()])
        except StoreError as error:
            os.write(theirs, str(error).encode())
        os._exit(0)
    os.close(theirs)
    os.waitpid(pid, 0)
    said = os.read(pipe, 1000).decode()
    os.close(pipe)
    assert said.startswith("The file definitions.jsonl, which belongs to root")
    assert "sudo chown" in said
