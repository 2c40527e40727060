"""The command line on a server: what it tells, a line for what it does not, and definitions carried over."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

import pytest

from localconc import create_limit, read_limit, read_limits
from localconc.errors import StoreError
from localconc.sync import concurrency
from tests.prefect.client import command, environment
from tests.prefect.server import PrefectServer

UNTOLD = "A Prefect server keeps these limits. It does not tell who holds slots, who waits, or for how long."


class Run(Protocol):
    """Runs a command on the shared server, or on this machine with `LOCALCONC_HOME`."""

    def __call__(self, *words: str, **more: str) -> CompletedProcess[str]: ...


@pytest.fixture
def run(on_server: PrefectServer, tmp_path: Path) -> Run:
    return lambda *words, **more: command(*words, url=on_server.url, home=tmp_path / "prefect", **more)


def _json(ended: CompletedProcess[str]) -> object:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_ls_shows_what_the_server_tells(run: Run, name: str) -> None:
    create_limit(name, 4, slot_decay_per_second=2)
    ended = run("ls")
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith(name)]
    assert line.split() == [name, "░░░░░░░░", "0/4", "2/second", "enabled"]
    assert ended.stdout.splitlines()[-1] == UNTOLD


def test_inspect_shows_what_the_server_tells(run: Run, name: str) -> None:
    create_limit(name, 4)
    with concurrency(name):
        ended = run("inspect", name)
    assert "1 of 4 slots in use" in ended.stdout
    assert ended.stdout.splitlines()[-1] == UNTOLD
    assert "Holding" not in ended.stdout


def test_json_has_null_for_what_the_server_does_not_tell(run: Run, name: str) -> None:
    create_limit(name, 4)
    shown = _json(run("inspect", name, "-o", "json"))
    assert isinstance(shown, dict)
    assert (shown["limit"], shown["holders"], shown["waiters"]) == (4, None, None)


def test_watch_without_a_terminal_says_it_once(run: Run, name: str) -> None:
    create_limit(name, 4)
    ended = run("watch", name)
    assert ended.stdout.splitlines()[-1] == UNTOLD
    assert "waiting" not in ended.stdout.splitlines()[0]


def test_path_shows_the_address(run: Run, on_server: PrefectServer) -> None:
    assert run("path").stdout.strip() == on_server.url


def test_doctor_looks_at_the_server(run: Run, on_server: PrefectServer) -> None:
    ended = run("doctor")
    assert ended.returncode == 0
    assert f"A Prefect server answers at {on_server.url}" in ended.stdout
    broken = run("doctor", PREFECT_API_URL="http://127.0.0.1:1/api")
    assert broken.returncode == 1
    assert "can't be reached" in broken.stdout


def test_run_holds_a_slot_while_the_command_runs(run: Run, name: str) -> None:
    create_limit(name, 1)
    ended = run("run", name, "--", "sh", "-c", f"python3 -m localconc inspect {name} -o json || echo held")
    assert ended.returncode == 0
    with concurrency(name):
        full = run("run", name, "--timeout", "0", "--", "true")
    assert full.returncode == 124
    assert "timed out" in full.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="terminals as Unix has them")
def test_the_line_while_waiting_says_that_the_server_keeps_the_place_to_itself(
    on_server: PrefectServer, name: str, tmp_path: Path
) -> None:
    pexpect = pytest.importorskip("pexpect")
    with concurrency(name, limit=1):
        child = pexpect.spawn(
            sys.executable,
            ["-m", "localconc", "run", name, "--", "true"],
            env=environment(on_server.url, tmp_path),
            dimensions=(24, 200),
            encoding="utf-8",
            timeout=30,
        )
        child.expect(f"Waiting for '{name}' .*: a Prefect server keeps it, which tells neither place nor holders")
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
    assert child.exitstatus == 130


def test_reset_frees_the_slots_that_a_lost_lease_left(run: Run, name: str) -> None:
    create_limit(name, 3, active_slots=2)
    ended = run("reset", name, "--yes", "-o", "json")
    shown = _json(ended)
    assert isinstance(shown, dict)
    assert (shown["active_slots"], shown["forgotten"]) == (0, [])


@pytest.mark.parametrize(
    "words",
    [("pause", "{name}", "1m"), ("resume", "{name}"), ("history",), ("stats", "{name}"), ("timeline",)],
    ids=lambda words: str(words[0]),
)
def test_a_command_that_the_server_can_not_carry_out_says_so_in_a_line(
    run: Run, on_server: PrefectServer, name: str, words: tuple[str, ...]
) -> None:
    create_limit(name, 1)
    ended = run(*(word.format(name=name) for word in words))
    assert ended.returncode == 1
    assert f"the Prefect server at {on_server.url} keeps the limits" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_run_has_no_slot_numbers_to_tell(run: Run, on_server: PrefectServer, name: str) -> None:
    create_limit(name, 1)
    assert run("run", name, "--", "sh", "-c", "exit ${LOCALCONC_SLOT:-7}").returncode == 7
    refused = run("run", name, "--slot-env", "DEVICE", "--", "true")
    assert refused.returncode == 1
    assert f"--slot-env: Slots have no numbers: the Prefect server at {on_server.url}" in refused.stderr


def test_a_misspelt_name_is_pointed_out(run: Run, name: str) -> None:
    create_limit(name, 1)
    ended = run("run", f"{name}y", "--", "true")
    assert f"did you mean {name!r}?" in ended.stderr


def test_no_address_is_one_line(run: Run) -> None:
    ended = run("ls", PREFECT_API_URL="")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "PREFECT_API_URL" in ended.stderr


def test_settings_that_prefect_refuses_are_named(run: Run) -> None:
    ended = run("ls", PREFECT_API_URL="http://[::1")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("localconc: Prefect's settings can't be used")


def test_commands_set_limits(run: Run, name: str) -> None:
    assert run("create", name, "--limit", "2").stdout == f"Created {name!r}: 2 slots\n"
    assert "exists" not in run("update", name, "--limit", "3").stderr
    assert run("disable", name).returncode == 0
    assert (read_limit(name).limit, read_limit(name).active) == (3, False)
    assert run("delete", name, "--yes").returncode == 0


# ---- definitions carried over ----------------------------------------------------------------------------------------


def test_definitions_go_to_the_server_and_back(run: Run, name: str, tmp_path: Path) -> None:
    here, there = {"LOCALCONC_HOME": str(tmp_path / "here")}, {"LOCALCONC_HOME": str(tmp_path / "there")}
    names = [f"{name}-a", f"{name}-b?#"]
    run("create", names[0], "--limit", "3", "--rate", "5/second", **here)
    run("create", names[1], "--limit", "0", "--disable", **here)
    exported = run("export", **here).stdout
    (tmp_path / "limits.json").write_text(exported)
    assert run("import", str(tmp_path / "limits.json")).stdout == "Imported 2 limits\n"
    assert [read_limit(one).limit for one in names] == [3, 0]
    back = [limit for limit in json.loads(run("export").stdout) if limit["name"] in names]
    (tmp_path / "back.json").write_text(json.dumps(back))
    run("import", str(tmp_path / "back.json"), **there)
    assert json.loads(run("export", **there).stdout) == json.loads(exported)


def test_importing_again_changes_nothing(run: Run, name: str, tmp_path: Path) -> None:
    file = tmp_path / "limits.json"
    file.write_text(json.dumps([{"name": name, "limit": 3}]))
    run("import", str(file))
    before = read_limit(name)
    assert run("import", str(file)).stdout == "Imported 1 limit\n"
    assert read_limit(name) == before


def test_a_bad_definition_is_found_before_anything_changes(run: Run, name: str, tmp_path: Path) -> None:
    file = tmp_path / "limits.json"
    file.write_text(json.dumps([{"name": name, "limit": 3}, {"name": "bad/name", "limit": 1}]))
    assert "nothing was changed" in run("import", str(file)).stderr
    assert name not in [limit.name for limit in read_limits()]


def test_an_import_that_stops_says_how_far_it_came(
    on_server: PrefectServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from localconc._prefect import close_keepers, open_keeper
    from tests.prefect.faults import install

    close_keepers()
    wire = install(monkeypatch)
    wire.before = lambda request: 418 if request.method == "POST" and b"third" in request.content else None
    wanted = [(f"{name}-{which}", 1, True, 0.0) for which in ("first", "second", "third", "fourth")]
    with pytest.raises(StoreError, match=f"set 2 of 4 limits and stopped at '{name}-third'"):
        open_keeper().ensure_all(wanted)
    assert [limit.name for limit in read_limits() if limit.name.startswith(name)] == [f"{name}-first", f"{name}-second"]
