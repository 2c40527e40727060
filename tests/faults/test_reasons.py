"""An error names the reason for which the store can't be used, and what helps against just that."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from localconc import ensure_limit, read_limits
from localconc._engine import registry
from localconc._engine.core.errors import CANTOPEN, MAX_PATH_BYTES, explained
from localconc._engine.operations import doctor
from localconc.errors import StoreError
from tests.faults.programs import Cast
from tests.test_errors import error_of

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has another limit, and no such descriptors")

#: Uses a limit in each of many homes, with one more descriptor each time, until that succeeds.
_TRIES_WITH_FEW_DESCRIPTORS = """
import json, os, resource
import localconc
from localconc.sync import concurrency
with concurrency("loads everything", limit=1): pass
localconc._engine.registry.forget_all()
lowest, home, highest = os.dup(0), os.environ["LOCALCONC_HOME"], resource.getrlimit(resource.RLIMIT_NOFILE)
os.close(lowest)
for room in range(1, 30):
    os.environ["LOCALCONC_HOME"] = f"{home}-{room}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, highest[1]))
    try:
        with concurrency("L", limit=1): text = ""
    except localconc.StoreError as error:
        text = str(error)
    resource.setrlimit(resource.RLIMIT_NOFILE, highest)
    localconc._engine.registry.forget_all()
    print(json.dumps(text), flush=True)
    if not text: break
"""


@posix
def test_a_process_without_descriptors_is_told_so_at_whichever_of_them_it_fails(programs: Cast) -> None:
    program = programs.python(_TRIES_WITH_FEW_DESCRIPTORS)
    *refusals, last = program.finish().splitlines()
    assert last == '""'
    assert len(refusals) > 4
    assert [each for each in refusals if "raise its limit of open files" not in each] == []
    assert [each for each in refusals if "permissions" in each or "writable" in each] == []


def test_a_database_that_may_not_be_opened_is_a_matter_of_permissions_though_no_descriptor_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    path = tmp_path / "localconc.db"
    path.touch()
    monkeypatch.setattr(os, "pipe", refuse)
    assert "raise its limit of open files" in str(explained(error_of(CANTOPEN), path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "check the permissions" in str(explained(error_of(CANTOPEN), path))


@posix
def test_a_home_whose_path_is_too_long_for_sqlite_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def home_with(length: int) -> Path:
        """Return a home whose database has a path of that many bytes."""
        place = tmp_path
        while (left := length - len(os.fsencode(place / "localconc.db")) - 1) > 200:
            place /= "d" * 100
        return place / ("d" * left)

    monkeypatch.setenv("LOCALCONC_HOME", str(home_with(MAX_PATH_BYTES)))
    ensure_limit("L", 1)
    assert [limit.name for limit in read_limits()] == ["L"]
    registry.forget_all()

    monkeypatch.setenv("LOCALCONC_HOME", str(home_with(MAX_PATH_BYTES + 1)))
    with pytest.raises(StoreError, match=f"its path has {MAX_PATH_BYTES + 1} bytes"):
        ensure_limit("L", 1)


def test_a_file_in_the_place_of_the_owners_is_named_by_the_call_and_by_the_doctor(
    localconc_home_directory: Path,
) -> None:
    localconc_home_directory.mkdir()
    (localconc_home_directory / "owners").touch()

    with pytest.raises(StoreError, match=r"owners is not a directory: move that file away\.$"):
        ensure_limit("L", 1)

    found = [each.text for each in doctor.examine(localconc_home_directory) if each.state == "wrong"]
    assert f"{localconc_home_directory / 'owners'} is not a directory." in found


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be renamed there")
def test_a_holder_goes_on_while_a_file_is_in_the_place_of_the_owners(
    programs: Cast, localconc_home_directory: Path
) -> None:
    owners = localconc_home_directory / "owners"
    holder, newcomer = programs.puppet(), programs.puppet()
    holder.must_enter("L", limit=1)
    owners.rename(owners.with_name("aside"))
    owners.touch()

    holder.must_enter("M", limit=1)
    holder.leave("L")

    owners.unlink()
    owners.with_name("aside").rename(owners)
    assert newcomer.enters("L")
    assert not newcomer.enters("M")
