"""The commands history, stats and timeline, on made-up acquisitions."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pendulum
import pytest

from localconc import limits
from localconc._engine.core.history import Acquisition, Hold, Statistics, statistics_of
from localconc.cli.program import run
from tests.kit.hostile import HOSTILE, assert_harmless_on_a_terminal
from tests.kit.made_up_history import Job, acquired, served, waiter

pytest.importorskip("click", reason="the extra cli is not installed")


class MadeUp:
    """A history in the place of the store's."""

    def __init__(self) -> None:
        self.acquisitions: list[Acquisition] = []
        self.asked: dict[str, Any] = {}

    def read_history(
        self, name_or_id: Any = None, *, since: Any = None, newest: int | None = None
    ) -> list[Acquisition]:
        name = None if name_or_id is None else limits.read_limit(name_or_id).name
        self.asked = {"name": name, "since": since, "newest": newest}
        found = [one for one in self.acquisitions if name in (None, one.name)]
        found = [one for one in found if since is None or (one.released_at or since) >= since]
        return found[-newest:] if newest else found

    def read_statistics(self, name_or_id: Any, *, since: Any = None) -> Statistics:
        limit = limits.read_limit(name_or_id)
        holds = [
            Hold(
                one.waited_seconds,
                one.acquired_at.timestamp(),
                one.released_at.timestamp() if one.released_at else None,
                one.slots,
            )
            for one in self.read_history(limit.name, since=since)
        ]
        return statistics_of(
            limit.name,
            holds,
            limit=limit.limit,
            slot_decay_per_second=limit.slot_decay_per_second,
            since=None if since is None else since.timestamp(),
            until=time.time(),
            refusals=0,
        )


def just_now(acquisitions: list[Acquisition]) -> list[Acquisition]:
    """Move acquisitions so that the last one ended a second ago."""
    last = max(one.released_at or one.acquired_at for one in acquisitions)
    shift = pendulum.now("UTC") - last - pendulum.duration(seconds=1)
    return [
        replace(
            one,
            acquired_at=one.acquired_at + shift,
            released_at=None if one.released_at is None else one.released_at + shift,
        )
        for one in acquisitions
    ]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    history = MadeUp()
    monkeypatch.setattr(limits, "read_history", history.read_history, raising=False)
    monkeypatch.setattr(limits, "read_statistics", history.read_statistics, raising=False)
    return history


@pytest.fixture
def story(made_up: MadeUp) -> MadeUp:
    """An import held two web processes up, and one of them was killed later."""
    limits.create_limit("database", 1)
    limits.create_limit("mail", 4)
    jobs = [Job(0, 30, pid=11, label="import"), Job(5, 2, pid=12, label="web"), Job(9, 2, pid=13, ending="killed")]
    mails = [acquired(Job(n, 1, pid=21), "mail") for n in range(3)]
    made_up.acquisitions = just_now(sorted([*served("database", 1, jobs), *mails], key=lambda one: one.acquired_at))
    return made_up


class Ended:
    """A command that ended: its status and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = run(arguments)
        self.stdout, self.stderr = capsys.readouterr()


@pytest.fixture
def localconc(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: Ended(capsys, *arguments)


# ---- history ---------------------------------------------------------------------------------------------------------


def test_history_lists_who_waited_and_held(story: MadeUp, localconc: Any):
    ended = localconc("history", "database")
    header, first, second, third = ended.stdout.rstrip("\n").split("\n")
    assert header.split() == ["ACQUIRED", "LIMIT", "SLOTS", "WAITED", "HELD", "PID", "HOLDER", "COMMAND"]
    assert first.split()[1:] == ["database", "1", "-", "30.0s", "11", "import", "job.py"]
    assert second.split()[1:] == ["database", "1", "25.0s", "2.00s", "12", "web", "job.py"]
    assert "2.00s, killed" in third
    assert ended.status == 0


def test_history_lists_the_newest_that_were_asked_for(story: MadeUp, localconc: Any):
    localconc("history", "-n", "2")
    assert story.asked["newest"] == 2
    localconc("history")
    assert story.asked["newest"] == 20


def test_history_for_programs_has_every_field_of_all_acquisitions(story: MadeUp, localconc: Any):
    found = json.loads(localconc("history", "-o", "json").stdout)
    assert story.asked["newest"] is None
    assert len(found) == 6
    assert found[0] == {
        "name": "database",
        "slots": 1,
        "numbers": [],
        "pid": 11,
        "thread": "MainThread",
        "command": "python job.py",
        "label": "import",
        "waited_seconds": 0.0,
        "acquired_at": story.acquisitions[0].acquired_at.isoformat(timespec="microseconds"),
        "released_at": story.acquisitions[0].released_at.isoformat(timespec="microseconds"),
        "mode": "concurrency",
        "ending": "released",
    }


@pytest.mark.parametrize(
    ("since", "seconds"), [("10m", 600), ("1h30m", 5_400), ("45s", 45), ("2d", 172_800), ("90", 90)]
)
def test_history_begins_where_since_says(story: MadeUp, localconc: Any, since: str, seconds: float):
    localconc("history", "--since", since)
    assert (pendulum.now() - story.asked["since"]).total_seconds() == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize("command", ["history", "stats", "timeline"])
def test_an_unknown_name_suggests_the_nearest(story: MadeUp, localconc: Any, command: str):
    ended = localconc(command, "databse")
    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr == "localconc: There is no limit 'databse'; did you mean 'database'?\n"


@pytest.mark.parametrize("command", ["history", "stats", "timeline"])
def test_an_empty_history_says_what_to_do(made_up: MadeUp, localconc: Any, command: str):
    ended = localconc(command)
    assert ended.status == 0
    assert ended.stdout == "Nothing was acquired yet. Use a limit, such as: localconc run NAME -- COMMAND\n"
    ended = localconc(command, "--since", "10m")
    assert ended.stdout == "Nothing was acquired in the last 10m00s. Leave out --since to look further back.\n"


@pytest.mark.parametrize("command", ["history", "stats", "timeline"])
@pytest.mark.parametrize("since", ["soon", "", "10x", "-5m", "nan", "999999d"])
def test_what_is_no_span_of_time_is_wrong_usage(made_up: MadeUp, localconc: Any, command: str, since: str):
    ended = localconc(command, "--since", since)
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith("localconc: --since must be ")
    assert ended.stderr.count("\n") == 1


def test_an_empty_history_for_programs_is_empty(made_up: MadeUp, localconc: Any):
    assert json.loads(localconc("history", "-o", "json").stdout) == []
    assert json.loads(localconc("stats", "-o", "json").stdout) == []
    assert localconc("stats", "-o", "prometheus").stdout == ""


def test_names_and_commands_change_nothing_on_a_terminal(made_up: MadeUp, localconc: Any):
    hostile = HOSTILE.translate(dict.fromkeys(map(ord, "/%&><\0\udcff")))
    limits.create_limit(hostile, 1)
    jobs = [Job(0, 3, label=HOSTILE, thread=HOSTILE, command=HOSTILE), Job(1, 3, thread=HOSTILE, command=HOSTILE)]
    made_up.acquisitions = just_now(served(hostile, 1, jobs))
    for arguments in (
        ["history"],
        ["history", "-o", "json"],
        ["stats"],
        ["stats", "-o", "json"],
        ["stats", "-o", "prometheus"],
        ["timeline"],
    ):
        ended = localconc(*arguments)
        assert ended.status == 0, ended.stderr
        assert ended.stdout
        assert_harmless_on_a_terminal(ended.stdout)


# ---- stats -----------------------------------------------------------------------------------------------------------


def test_stats_show_waits_and_holds_of_each_limit(story: MadeUp, localconc: Any):
    _, header, waited, held, *others = localconc("stats").stdout.rstrip("\n").split("\n")
    assert header.split() == ["LIMIT", "ACQUIRED", "REFUSED", "IN", "USE", "P50", "P90", "P99", "LONGEST"]
    assert waited.split() == ["database", "3", "-", "97%", "waited", "23.0s", "25.0s", "25.0s", "25.0s"]
    assert held.split() == ["held", "2.00s", "30.0s", "30.0s", "30.0s"]
    assert len(others) == 2


def test_stats_for_programs_have_every_field(story: MadeUp, localconc: Any):
    one = json.loads(localconc("stats", "database", "-o", "json").stdout)
    assert one["name"] == "database"
    assert one["acquisitions"] == 3
    assert set(one) == {
        "name", "since", "until", "acquisitions", "refusals", "waited_seconds", "held_seconds", "utilization",
    }  # fmt: skip
    assert one["waited_seconds"] == pytest.approx({"p50": 23, "p90": 25, "p99": 25, "max": 25}, abs=1e-3)
    everything = json.loads(localconc("stats", "-o", "json").stdout)
    assert [each["name"] for each in everything] == ["database", "mail"]


def test_stats_for_prometheus_are_its_text_format(story: MadeUp, localconc: Any):
    printed = localconc("stats", "-o", "prometheus").stdout
    assert 'localconc_window_acquisitions{limit="database"} 3\n' in printed
    assert 'localconc_held_seconds{limit="mail",quantile="1"} 1.0\n' in printed


def test_a_format_that_there_is_not_is_wrong_usage(story: MadeUp, localconc: Any):
    ended = localconc("stats", "-o", "xml")
    assert ended.status == 2
    assert ended.stderr == "localconc: --output must be text, json or prometheus, not 'xml'\n"


# ---- timeline --------------------------------------------------------------------------------------------------------


def test_timeline_draws_a_line_for_each_holder(story: MadeUp, localconc: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    printed = localconc("timeline", "database").stdout
    assert printed.startswith("import held others up most: requests waited")
    assert "█" in printed
    assert "·" in printed
    assert "mail" not in printed


@pytest.mark.parametrize(
    ("file", "begin"), [("t.html", "<!DOCTYPE html>"), ("t.HTM", "<!DOCTYPE html>"), ("t.svg", "<svg"), ("t.json", "{")]
)
def test_timeline_draws_into_a_file(story: MadeUp, localconc: Any, tmp_path: Path, file: str, begin: str):
    ended = localconc("timeline", "-o", str(tmp_path / file))
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout == f"Wrote {tmp_path / file}\n"
    assert (tmp_path / file).read_text().startswith(begin)


def test_timeline_shows_the_limits_that_were_named(
    story: MadeUp, localconc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "read_waiters", lambda: [waiter("database")])
    localconc("timeline", "mail", "-o", str(tmp_path / "t.json"))
    trace = json.loads((tmp_path / "t.json").read_text())
    named = [event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "process_name"]
    assert named == ["mail"]


def test_an_ending_that_there_is_not_is_wrong_usage(story: MadeUp, localconc: Any, tmp_path: Path):
    ended = localconc("timeline", "-o", str(tmp_path / "t.png"))
    assert ended.status == 2
    assert "must be a file that ends in .html, .svg or .json" in ended.stderr
    assert os.listdir(tmp_path) in ([], ["home"])


def test_a_file_that_cannot_be_written_is_one_line(story: MadeUp, localconc: Any, tmp_path: Path):
    ended = localconc("timeline", "-o", str(tmp_path / "missing" / "t.html"))
    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr == f"localconc: '{tmp_path}/missing/t.html' can't be written (No such file or directory)\n"


def test_an_old_file_survives_if_the_new_one_cannot_be_written(
    story: MadeUp, localconc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "t.svg"
    file.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    ended = localconc("timeline", "-o", str(file))
    assert ended.status == 1
    assert ended.stderr == f"localconc: '{file}' can't be written (No space left on device)\n"
    assert file.read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "home") == ["t.svg"]


def test_an_empty_history_is_no_file(made_up: MadeUp, localconc: Any, tmp_path: Path):
    ended = localconc("timeline", "-o", str(tmp_path / "t.html"))
    assert (ended.status, ended.stdout) == (1, "")
    assert "Nothing was acquired yet" in ended.stderr
    assert not (tmp_path / "t.html").exists()
