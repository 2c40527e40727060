"""The command line: making, showing, changing and deleting limits."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from localconc import create_limit, read_limit, read_limits, read_waiters, update_limit
from localconc.cli.output.json import time_text
from localconc.sync import concurrency
from tests.kit.command_line import COMMAND, as_json, fails, holding, localconc, ok, running, until

LIMIT_FIELDS = {
    "id",
    "name",
    "limit",
    "active",
    "active_slots",
    "denied_slots",
    "slot_decay_per_second",
    "avg_slot_occupancy_seconds",
    "created",
    "updated",
    "paused_until",
}


def test_an_empty_list_says_how_to_make_a_limit() -> None:
    assert "localconc create" in ok("ls")
    assert as_json("ls") == []


def test_create_makes_what_the_options_say() -> None:
    ok("create", "gpu", "--limit", "4", "--active-slots", "3", "--disable")
    limit = read_limit("gpu")
    assert (limit.limit, limit.active_slots, limit.active) == (4, 3, False)


@pytest.mark.parametrize(
    ("rate", "per_second"),
    [("5/second", 5), ("100/minute", 100 / 60), ("1000/hour", 1000 / 3600), ("1/day", 1 / 86400), ("2.5 / s", 2.5)],
)
def test_a_rate_in_words_is_a_decay(rate: str, per_second: float) -> None:
    assert as_json("create", "api", "-l", "10", "--rate", rate)["slot_decay_per_second"] == per_second


def test_ls_shows_slots_waiters_decay_and_age_in_words() -> None:
    create_limit("gpu", 4, active_slots=3)
    create_limit("api", 10, slot_decay_per_second=100 / 60)
    lines = ok("ls").splitlines()
    assert lines[1].split()[0] == "api"
    assert "100/minute" in lines[1]
    assert "██████░░ 3/4" in lines[2]
    assert "ago" in lines[2]


def test_the_json_of_ls_has_the_fields_of_a_limit_and_counts_waiters() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"), running("run", "gpu", "--", "true") as waiter:
        until(lambda: read_waiters("gpu"))
        (listed,) = as_json("ls")
        assert set(listed) == LIMIT_FIELDS | {"waiters"}
        assert listed["waiters"] == 1
        assert listed["active_slots"] == 1
        stored = read_limit("gpu")
        assert datetime.fromisoformat(listed["created"]) == stored.created
        assert listed["id"] == str(stored.id)
        waiter.close()


def test_a_time_has_the_same_form_whatever_it_is() -> None:
    assert time_text(1.0) == "1970-01-01T00:00:01.000000+00:00"
    assert time_text(1.5) == "1970-01-01T00:00:01.500000+00:00"


def test_inspect_lists_holders_and_waiters_in_order() -> None:
    create_limit("gpu", 2)
    with (
        holding("gpu", options=("--occupy", "2")) as holder,
        running("run", "gpu", "--", "true") as first,
    ):
        until(lambda: len(read_waiters("gpu")) == 1)
        with running("run", "gpu", "--", "true") as second:
            until(lambda: len(read_waiters("gpu")) == 2)
            shown = as_json("inspect", "gpu")
            text = ok("inspect", "gpu")
            second.close()
        first.close()
        holder.end()
    assert set(shown) >= LIMIT_FIELDS
    (held,) = shown["holders"]
    assert held["slots"] == 2
    assert held["command"].startswith("sh -c")
    assert datetime.fromisoformat(held["acquired_at"])
    assert [(waiter["pid"], waiter["position"]) for waiter in shown["waiters"]] == [(first.pid, 1), (second.pid, 2)]
    assert set(shown["waiters"][0]) == {"pid", "thread", "command", "label", "slots", "waiting_since", "position"}
    assert text.index(str(held["pid"])) < text.index(str(first.pid)) < text.index(str(second.pid))


def test_ls_lists_only_what_is_named() -> None:
    for name in ("gpu", "api", "database"):
        create_limit(name, 2)
    assert [one["name"] for one in as_json("ls", "gpu", "api")] == ["api", "gpu"]
    assert "did you mean 'database'?" in fails("ls", "gpu", "databse", status=1)


def test_inspect_and_watch_show_ages_alike() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"):
        inspected, watched = ok("inspect", "gpu"), ok("watch", "gpu")
    age = r"\d+(\.\d)?s"
    assert re.search(rf"(?m)^PID +SLOTS +FOR .*\n{os.getpid()} +1 +{age} ", inspected)
    assert re.search(rf"holds  pid {os.getpid()}  1x  {age}  ", watched)


def test_a_wait_is_not_estimated_before_anybody_has_released_a_slot() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"):
        assert "would wait" not in ok("inspect", "gpu")
    with concurrency("gpu"):
        assert "would wait" in ok("inspect", "gpu")


def test_a_wait_for_slots_that_an_operator_occupied_is_not_estimated() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"):
        pass
    update_limit("gpu", active_slots=1)
    assert "would wait" not in ok("inspect", "gpu")


def test_inspect_says_when_the_next_slot_of_a_decaying_limit_frees() -> None:
    create_limit("api", 10, active_slots=5, slot_decay_per_second=0.01)
    assert "The next slot frees in 1m" in ok("inspect", "api")
    assert as_json("inspect", "api")["next_slot_at"] is not None


def test_inspect_writes_its_json_to_a_file(tmp_path: Path) -> None:
    create_limit("gpu", 4)
    ok("inspect", "gpu", "-o", "json", "--file", str(tmp_path / "gpu.json"))
    assert json.loads((tmp_path / "gpu.json").read_text())["limit"] == 4


def test_update_changes_what_it_is_told_and_nothing_else() -> None:
    before = create_limit("gpu", 4, slot_decay_per_second=2.0)
    ok("update", "gpu", "--limit", "8", "--name", "gpus", "--disable")
    after = read_limit("gpus")
    assert (after.id, after.limit, after.active, after.slot_decay_per_second) == (before.id, 8, False, 2.0)


def test_enable_and_disable_switch_a_limit() -> None:
    create_limit("gpu", 4)
    ok("disable", "gpu")
    assert not read_limit("gpu").active
    ok("enable", "gpu")
    assert read_limit("gpu").active


def test_delete_does_not_ask_where_there_is_no_terminal() -> None:
    create_limit("gpu", 4)
    ok("delete", "gpu")
    assert read_limits() == []


def test_reset_forgets_every_holder() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu"):
        ok("reset", "gpu", "--yes")
        assert read_limit("gpu").active_slots == 0


def test_reset_tells_whom_it_forgot_and_that_they_still_run() -> None:
    create_limit("gpu", 1)
    with holding("gpu") as holder, running("run", "gpu", "--", "sh", "-c", "read line") as waiter:
        until(lambda: read_waiters("gpu"))
        (held,) = as_json("inspect", "gpu")["holders"]
        text = ok("reset", "gpu", "--yes")
        assert text.splitlines()[0] == "Reset 'gpu': 1 slot"
        assert f"Forgot pid {held['pid']} (" in text
        assert "1 slot; it still runs" in text
        assert "Waiters have got 1 slot since" in text
        assert waiter.end() == 0
        assert holder.end() == 0


def test_the_json_of_reset_lists_whom_it_forgot() -> None:
    create_limit("gpu", 2)
    with concurrency("gpu", 2):
        (forgotten,) = as_json("reset", "gpu")["forgotten"]
    assert (forgotten["pid"], forgotten["slots"]) == (os.getpid(), 2)


def test_path_is_where_the_database_is(localconc_home_directory: Path) -> None:
    assert localconc("path").stdout.strip() == str(localconc_home_directory / "localconc.db")
    assert not localconc_home_directory.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="paths are Unicode there")
def test_path_is_exact_even_if_it_is_not_utf_8(tmp_path: Path) -> None:
    home = os.fsencode(tmp_path) + b"/caf\xe9"
    result = subprocess.run(
        [*COMMAND, "path"], env={**os.environb, b"LOCALCONC_HOME": home}, capture_output=True, check=False, timeout=30
    )
    assert result.stdout == home + b"/localconc.db\n"
    told = subprocess.run(
        [*COMMAND, "path", "-o", "json"], env={**os.environb, b"LOCALCONC_HOME": home}, capture_output=True, check=True
    )
    assert os.fsencode(json.loads(told.stdout)["home"]) == home


@pytest.mark.skipif(sys.platform != "linux", reason="the custom of another system")
def test_path_tells_where_the_home_comes_from_and_which_others_there_are(tmp_path: Path) -> None:
    user = {name: value for name, value in os.environ.items() if name not in ("LOCALCONC_HOME", "XDG_DATA_HOME")}
    user["HOME"] = str(tmp_path)
    snap = {**user, "XDG_DATA_HOME": str(tmp_path / "snap" / "code" / "current" / ".local" / "share")}
    for environment in (user, snap):
        ok("create", "gpu", "--limit", "1", env=environment)
    usual, other = tmp_path / ".local/share/localconc", tmp_path / "snap/code/current/.local/share/localconc"
    shown = localconc("path", env=snap)
    assert shown.stdout == f"{other / 'localconc.db'}\n"
    assert "This home comes from XDG_DATA_HOME." in shown.stderr
    assert f"another home of this user, with limits of its own: {usual}\n" in shown.stderr
    assert str(other) not in shown.stderr
    told = json.loads(localconc("path", "-o", "json", env=user).stdout)
    assert told["source"] == "the user's data directory"
    assert str(other) in told["other_homes"]
    assert str(usual) not in told["other_homes"]


# ---- making sure -----------------------------------------------------------------------------------------------------


def test_ensure_makes_a_limit_changes_it_and_leaves_it_and_says_which() -> None:
    assert ok("ensure", "gpu", "--limit", "2") == "Created 'gpu': 2 slots\n"
    assert ok("ensure", "gpu", "--limit", "2") == "Unchanged 'gpu': 2 slots\n"
    assert ok("ensure", "gpu", "--limit", "3", "--rate", "5/s") == "Updated 'gpu': 3 slots, 5/second drain\n"
    assert (read_limit("gpu").limit, read_limit("gpu").slot_decay_per_second) == (3, 5.0)


def test_ensure_undoes_what_differs() -> None:
    create_limit("gpu", 2, active=False, slot_decay_per_second=1.0)
    ok("ensure", "gpu", "--limit", "2")
    assert (read_limit("gpu").active, read_limit("gpu").slot_decay_per_second) == (True, 0.0)


def test_ensure_takes_a_limit_that_only_a_program_named_for_none() -> None:
    with concurrency("gpu"):
        pass
    assert as_json("ensure", "gpu", "-l", "1")["done"] == "created"


def test_ensure_needs_to_know_how_many_slots() -> None:
    assert "How many slots?" in fails("ensure", "gpu", status=2)


# ---- pauses ----------------------------------------------------------------------------------------------------------


def test_pause_admits_nobody_and_resume_ends_it() -> None:
    create_limit("api", 1)
    assert re.fullmatch(r"Paused 'api' until \d\d:\d\d:\d\d, for (30|29)s\n", ok("pause", "api", "30s"))
    assert "paused" in fails("run", "api", "--timeout", "0", "--", "true", status=124)
    assert ok("resume", "api") == "Resumed 'api': 1 slot\n"
    ok("run", "api", "--timeout", "0", "--", "true")


def test_resume_wakes_the_next_waiter() -> None:
    create_limit("api", 1)
    ok("pause", "api", "1h")
    with running("run", "api", "--", "true") as waiter:
        until(lambda: read_waiters("api"))
        ok("resume", "api")
        assert waiter.wait() == 0


def test_a_pause_is_shown_with_what_is_left_of_it() -> None:
    create_limit("api", 1)
    ok("pause", "api", "1h")
    for command in (("ls",), ("inspect", "api"), ("watch",)):
        assert re.search(r"paused (1h00m|59m\d\ds)", ok(*command))
    assert datetime.fromisoformat(as_json("inspect", "api")["paused_until"]) > datetime.now(UTC)


@pytest.mark.parametrize("time", ["0", "-1", "soon", "31d"])
def test_what_is_no_time_to_pause_is_wrong_usage(time: str) -> None:
    create_limit("api", 1)
    fails("pause", "api", "--", time, status=2)


def test_a_time_below_0_is_refused_for_what_it_is_even_if_it_looks_like_an_option() -> None:
    create_limit("api", 1)
    assert "no number may be below 0" in fails("pause", "api", "-5s", status=2)
    # Versions of click differ in how they put it.
    assert re.search("No such option:? '?--five", fails("pause", "api", "--five", status=2))
    said = fails("run", "api", "head", "-5", status=2)
    assert re.search(r"No such option:? '?-5'?\. Put -- before the command\.", said)


@pytest.mark.parametrize("number", ["inf", "nan"])
def test_a_time_that_is_not_finite_is_refused_for_what_it_is(number: str) -> None:
    assert f"--timeout must be a finite number, not {number}" in fails("rate", "api", "--timeout", number, status=2)


@pytest.mark.parametrize("command", [("pause", "databse", "1s"), ("resume", "databse")])
def test_a_missing_limit_can_not_be_paused(command: tuple[str, ...]) -> None:
    create_limit("database", 1)
    assert "did you mean 'database'?" in fails(*command, status=1)


@pytest.mark.parametrize("name", ["two words", "[red]alarm", ":smile:", "naïve ☃", "-dash", "a,b"])
def test_names_are_shown_literally(name: str) -> None:
    create_limit(name, 4)
    assert name in ok("ls")
    assert name in ok("inspect", "--", name)
    assert as_json("ls")[0]["name"] == name


def test_control_characters_in_names_do_not_reach_the_terminal() -> None:
    create_limit("\x1b[31mred", 4)
    for command in (("ls",), ("inspect", "\x1b[31mred"), ("watch",)):
        assert "\x1b" not in ok(*command)


def test_long_names_are_whole_in_a_pipe() -> None:
    create_limit("n" * 300, 4)
    assert "n" * 300 in ok("ls")


# ---- export and import -----------------------------------------------------------------------------------------------


def test_an_export_makes_the_same_limits_elsewhere(tmp_path: Path) -> None:
    create_limit("gpu", 4, active_slots=2)
    create_limit("api", 10, active=False, slot_decay_per_second=0.1)
    ok("export", str(tmp_path / "limits.json"))
    elsewhere = {"LOCALCONC_HOME": str(tmp_path / "elsewhere")}
    ok("import", str(tmp_path / "limits.json"), env={**os.environ, **elsewhere})
    shown = json.loads(ok("ls", "-o", "json", env={**os.environ, **elsewhere}))
    assert [(one["name"], one["limit"], one["active"], one["active_slots"]) for one in shown] == [
        ("api", 10, False, 0),
        ("gpu", 4, True, 0),
    ]
    assert shown[0]["slot_decay_per_second"] == 0.1


def test_an_import_leaves_other_limits_and_what_is_held_alone() -> None:
    create_limit("other", 4)
    create_limit("gpu", 1, active_slots=1)
    ok("import", "-", input='[{"name": "gpu", "limit": 3}]')
    assert (read_limit("other").limit, read_limit("gpu").limit, read_limit("gpu").active_slots) == (4, 3, 1)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "{}",
        '[{"name": "new", "limit": 1}, {"name": "bad/name", "limit": 1}]',
        '[{"name": "new", "limit": 1}, {"name": "x", "limit": -1}]',
        '[{"name": "new", "limit": 1}, {"name": "x"}]',
        '[{"name": "new", "limit": 1}, {"name": "x", "limit": 1, "colour": 1}]',
        '[{"name": "new", "limit": 1}, {"name": "new", "limit": 2}]',
        '[{"name": "new", "limit": 1}, {"name": "x", "limit": 1, "slot_decay_per_second": NaN}]',
        "[" * 100_000,
    ],
)
def test_a_bad_import_changes_nothing(content: str) -> None:
    assert "nothing was changed" in fails("import", "-", status=1, input=content)
    assert read_limits() == []


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "gpu"),
        ("create", "gpu", "--limit", "-1"),
        ("create", "gpu", "--limit", "many"),
        ("create", "gpu", "--limit", "99999999999"),
        ("create", "bad/name", "--limit", "1"),
        ("create", "", "--limit", "1"),
        ("create", "gpu", "--limit", "1", "--active-slots", "-1"),
        ("create", "gpu", "--limit", "1", "--slot-decay-per-second", "-1"),
        ("create", "gpu", "--limit", "1", "--slot-decay-per-second", "nan"),
        ("create", "gpu", "--limit", "1", "--rate", "fast"),
        ("create", "gpu", "--limit", "1", "--rate", "0/second"),
        ("create", "gpu", "--limit", "1", "--rate", "1/second", "--slot-decay-per-second", "1"),
        ("update", "there"),
        ("update", "there", "--enable", "--disable"),
        ("update", "there", "--limit", "-5"),
        ("ls", "--output", "yaml"),
        ("inspect", "there", "-o", "xml"),
        ("ls", "--nonsense"),
        ("inspect",),
        ("nonsense",),
        ("run", "there", "--occupy", "0", "--", "true"),
        ("run", "there", "--timeout", "-1", "--", "true"),
        ("run", "there", "--exit-code", "256", "--", "true"),
        ("run", "there"),
        ("rate", "there", "--occupy", "x"),
        ("rate", "bad/name"),
        ("rate",),
        ("run", "bad/name", "--", "true"),
        ("ensure", "bad/name", "--limit", "1"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    create_limit("there", 1)
    fails(*arguments, status=2)


@pytest.mark.parametrize("command", ["inspect", "update", "enable", "disable", "delete", "reset", "watch"])
def test_a_name_that_does_not_exist_suggests_the_nearest(command: str) -> None:
    create_limit("database", 4)
    options = ("--limit", "3") if command == "update" else ()
    assert "'database'?" in fails(command, "databse", *options, status=1)


def test_a_command_that_does_not_exist_suggests_the_nearest() -> None:
    if "did you mean" in fails("crate", status=2).lower():  # not every parser does
        assert "'rate'? Try 'localconc --help'." in fails("crate", status=2)


def test_wrong_usage_of_a_command_points_to_its_own_help() -> None:
    for arguments in (("inspect",), ("inspect", "--nonsense"), ("create", "gpu", "--limit"), ("path", "more")):
        assert fails(*arguments, status=2).endswith(f"Try 'localconc {arguments[0]} --help'.")
    assert fails("--nonsense", status=2).endswith("Try 'localconc --help'.")


def test_what_failed_is_one_line_and_status_1(tmp_path: Path) -> None:
    create_limit("there", 1)
    assert "localconc update" in fails("create", "there", "--limit", "2", status=1)
    fails("import", str(tmp_path / "missing.json"), status=1)
    fails("export", str(tmp_path / "missing" / "limits.json"), status=1)


def test_a_home_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails("ls", status=1, env={**os.environ, "LOCALCONC_HOME": str(tmp_path / "file")})


def _in_a_shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in which `$LOCALCONC` is the command."""
    environment = {**os.environ, "LOCALCONC": shlex.join(COMMAND)}
    return subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("command", ["ls", "ls -o json", "inspect gpu", "watch", "doctor", "export", "--help"])
@pytest.mark.parametrize("stdout", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_is_one_line(command: str, stdout: str) -> None:
    create_limit("gpu", 4)
    result = _in_a_shell(f"$LOCALCONC {command} {stdout}")
    assert result.returncode == 1
    assert re.fullmatch(r"localconc: The output can't be written \(.+\)\n", result.stderr)


def test_a_working_directory_that_is_gone_is_one_line_that_does_not_blame_the_output() -> None:
    result = _in_a_shell('cd "$(mktemp -d)" && rmdir "$PWD" && LOCALCONC_HOME=here $LOCALCONC ls')
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "output" not in result.stderr


def test_nobody_who_reads_the_output_is_no_news() -> None:
    create_limit("gpu", 4)
    result = _in_a_shell("{ $LOCALCONC ls; echo $? >&2; } | true")
    assert result.stderr == "1\n"


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"])
def test_the_exit_status_is_the_same_where_nobody_can_read_the_error(stderr: str) -> None:
    assert _in_a_shell(f"$LOCALCONC ls --nonsense {stderr}").returncode == 2
    assert _in_a_shell(f"$LOCALCONC inspect missing {stderr}").returncode == 1
    assert _in_a_shell(f"$LOCALCONC inspect missing {stderr}").stdout == ""
    assert _in_a_shell(f"$LOCALCONC run gpu --limit 1 {stderr} -- sh -c 'exit 7'").returncode == 7


def test_without_stdin_nothing_is_asked_and_nothing_comes_from_it() -> None:
    create_limit("gpu", 4)
    assert "What came from stdin is not JSON" in _in_a_shell("$LOCALCONC import - <&-").stderr
    assert _in_a_shell("$LOCALCONC watch <&-").returncode == 0
    assert _in_a_shell("$LOCALCONC delete gpu <&-").returncode == 0
    assert read_limits() == []


def test_text_that_a_terminal_cannot_show_is_written_out() -> None:
    create_limit("naïve", 4)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = localconc("ls", env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "na\\xefve" in result.stdout
    assert json.loads(localconc("ls", "-o", "json", env=environment).stdout)[0]["name"] == "naïve"
