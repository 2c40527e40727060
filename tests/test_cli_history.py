"""The commands history, stats and timeline, on made-up acquisitions in a real store."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pendulum
import pytest

from localconc import limits
from localconc._engine.core.history import Acquisition
from localconc._engine.store.rows import past
from localconc.cli.program import run
from localconc.sync import acquire, concurrency
from tests.kit.hostile import HOSTILE, SURROGATE, assert_harmless_on_a_terminal
from tests.kit.made_up_history import NINE, Job, acquired, served
from tests.kit.processes import wait_until
from tests.kit.recorded_history import record

pytest.importorskip("click", reason="the extra cli is not installed")


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


Recorder = Callable[[list[Acquisition]], list[Acquisition]]


@pytest.fixture
def recorded(localconc_home_directory: Path) -> Recorder:
    """Writes acquisitions into the history; the last one ended a second ago."""

    def write(acquisitions: list[Acquisition]) -> list[Acquisition]:
        moved = just_now(sorted(acquisitions, key=lambda one: one.acquired_at))
        record(localconc_home_directory, moved)
        return moved

    return write


@pytest.fixture
def story(recorded: Recorder) -> list[Acquisition]:
    """An import held two web processes up, and one of them was killed later."""
    limits.create_limit("database", 1)
    limits.create_limit("mail", 4)
    jobs = [Job(0, 30, pid=11, label="import"), Job(5, 2, pid=12, label="web"), Job(9, 2, pid=13, ending="killed")]
    mails = [acquired(Job(n, 1, pid=21), "mail") for n in range(3)]
    return recorded([*served("database", 1, jobs), *mails])


class Ended:
    """A command that ended: its status and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = run(arguments)
        self.stdout, self.stderr = capsys.readouterr()


@pytest.fixture
def localconc(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: Ended(capsys, *arguments)


# ---- history ---------------------------------------------------------------------------------------------------------


def test_history_lists_who_waited_and_held(story: list[Acquisition], localconc: Any):
    ended = localconc("history", "database")
    header, first, second, third = ended.stdout.rstrip("\n").split("\n")
    assert header.split() == ["ACQUIRED", "LIMIT", "SLOTS", "WAITED", "HELD", "PID", "HOLDER", "COMMAND"]
    assert first.split()[1:] == ["database", "1", "-", "30.0s", "11", "import", "job.py"]
    assert second.split()[1:] == ["database", "1", "25.0s", "2.00s", "12", "web", "job.py"]
    assert "2.00s, killed" in third
    assert ended.status == 0


def test_history_lists_the_newest_that_were_asked_for(recorded: Recorder, localconc: Any):
    limits.create_limit("db", 1)
    recorded([acquired(Job(number, 0.5, label=f"job-{number}")) for number in range(30)])
    lines = localconc("history", "-n", "2").stdout.splitlines()
    assert [re.findall(r"job-\d+", line) for line in lines[1:]] == [["job-28"], ["job-29"]]
    assert len(localconc("history").stdout.splitlines()) == 1 + 20


def test_history_for_programs_has_every_field_of_all_acquisitions(story: list[Acquisition], localconc: Any):
    found = json.loads(localconc("history", "-o", "json").stdout)
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
        "acquired_at": story[0].acquired_at.isoformat(timespec="microseconds"),
        "released_at": (story[0].released_at or NINE).isoformat(timespec="microseconds"),
        "mode": "concurrency",
        "ending": "released",
    }


@pytest.mark.parametrize(
    ("since", "seconds"), [("10m", 600), ("1h30m", 5_400), ("45s", 45), ("2d", 172_800), ("90", 90)]
)
def test_history_begins_where_since_says(recorded: Recorder, localconc: Any, since: str, seconds: float):
    limits.create_limit("db", 9)
    moments = {"too-old": -1.5 * seconds, "old": -0.5 * seconds, "new": 0}
    recorded([acquired(Job(moment, seconds / 10, label=label)) for label, moment in moments.items()])
    listed = localconc("history", "--since", since).stdout
    assert re.findall(r"too-old|old|new", listed) == ["old", "new"]


@pytest.mark.parametrize("command", ["history", "stats", "timeline"])
def test_an_unknown_name_suggests_the_nearest(story: list[Acquisition], localconc: Any, command: str):
    ended = localconc(command, "databse")
    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr == "localconc: There is no limit 'databse'; did you mean 'database'?\n"


@pytest.mark.parametrize("command", ["history", "stats", "timeline"])
def test_an_empty_history_says_what_to_do(localconc: Any, command: str):
    ended = localconc(command)
    assert ended.status == 0
    assert ended.stdout == "Nothing was acquired yet. Use a limit, such as: localconc run NAME -- COMMAND\n"
    ended = localconc(command, "--since", "10m")
    assert ended.stdout == "Nothing was acquired in the last 10m00s. Leave out --since to look further back.\n"


@pytest.mark.parametrize("command", ["history", "stats", "timeline"])
@pytest.mark.parametrize("since", ["soon", "", "10x", "-5m", "nan", "999999d"])
def test_what_is_no_span_of_time_is_wrong_usage(localconc: Any, command: str, since: str):
    ended = localconc(command, "--since", since)
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.startswith("localconc: --since must be ")
    assert ended.stderr.count("\n") == 1


def test_an_empty_history_for_programs_is_empty(localconc: Any):
    assert json.loads(localconc("history", "-o", "json").stdout) == []
    assert json.loads(localconc("stats", "-o", "json").stdout) == []
    assert localconc("stats", "-o", "prometheus").stdout == ""


def test_names_and_commands_change_nothing_on_a_terminal(recorded: Recorder, localconc: Any):
    hostile, name = HOSTILE.replace(SURROGATE, ""), HOSTILE.translate(dict.fromkeys(map(ord, "/%&><\0\udcff")))
    limits.create_limit(name, 1)
    jobs = [Job(0, 3, label=hostile, thread=hostile, command=hostile), Job(1, 3, thread=hostile, command=hostile)]
    recorded(served(name, 1, jobs))
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


def test_stats_show_waits_and_holds_of_each_limit(story: list[Acquisition], localconc: Any):
    _, header, waited, held, *others = localconc("stats").stdout.rstrip("\n").split("\n")
    assert header.split() == ["LIMIT", "ACQUIRED", "REFUSED", "IN", "USE", "P50", "P90", "P99", "LONGEST"]
    assert waited.split() == ["database", "3", "-", "97%", "waited", "23.0s", "25.0s", "25.0s", "25.0s"]
    assert held.split() == ["held", "2.00s", "30.0s", "30.0s", "30.0s"]
    assert len(others) == 2


def test_stats_for_programs_have_every_field(story: list[Acquisition], localconc: Any):
    one = json.loads(localconc("stats", "database", "-o", "json").stdout)
    assert one["name"] == "database"
    assert one["acquisitions"] == 3
    assert set(one) == {
        "name", "since", "until", "acquisitions", "refusals", "waited_seconds", "held_seconds", "utilization",
    }  # fmt: skip
    assert one["waited_seconds"] == pytest.approx({"p50": 23, "p90": 25, "p99": 25, "max": 25}, abs=1e-3)
    everything = json.loads(localconc("stats", "-o", "json").stdout)
    assert [each["name"] for each in everything] == ["database", "mail"]


def test_stats_of_all_limits_read_the_history_once(localconc: Any, monkeypatch: pytest.MonkeyPatch):
    for number in range(5):
        limits.create_limit(f"limit {number}", number + 1)
        with concurrency(f"limit {number}", number + 1):
            for _ in range(number):
                with pytest.raises(TimeoutError), concurrency(f"limit {number}", timeout_seconds=0):
                    pass
    each = [json.loads(localconc("stats", f"limit {number}", "-o", "json").stdout) for number in range(5)]
    reads: list[int | None] = []
    read = past.holds
    monkeypatch.setattr(
        past, "holds", lambda connection, limit_id: reads.append(limit_id) or read(connection, limit_id)
    )
    everything = json.loads(localconc("stats", "-o", "json").stdout)

    assert reads == [None], "one query for each of thousands of limits would read the whole history each time"
    changing = {"until", "utilization"}
    assert [{key: one[key] for key in one.keys() - changing} for one in everything] == [
        {key: one[key] for key in one.keys() - changing} for one in each
    ]
    assert [one["refusals"] for one in everything] == [0, 1, 2, 3, 4]


def test_stats_for_prometheus_are_its_text_format(story: list[Acquisition], localconc: Any):
    printed = localconc("stats", "-o", "prometheus").stdout
    assert 'localconc_window_acquisitions{limit="database"} 3\n' in printed
    assert 'localconc_held_seconds{limit="mail",quantile="1"} 1.0\n' in printed


def test_a_format_that_there_is_not_is_wrong_usage(story: list[Acquisition], localconc: Any):
    ended = localconc("stats", "-o", "xml")
    assert ended.status == 2
    assert ended.stderr == "localconc: --output must be text, json or prometheus, not 'xml'\n"


# ---- timeline --------------------------------------------------------------------------------------------------------


def test_timeline_draws_a_line_for_each_holder(
    story: list[Acquisition], localconc: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "100")
    printed = localconc("timeline", "database").stdout
    assert printed.startswith("import held others up most: requests waited")
    assert "█" in printed
    assert "·" in printed
    assert "mail" not in printed


@pytest.mark.parametrize(
    ("file", "begin"), [("t.html", "<!DOCTYPE html>"), ("t.HTM", "<!DOCTYPE html>"), ("t.svg", "<svg"), ("t.json", "{")]
)
def test_timeline_draws_into_a_file(story: list[Acquisition], localconc: Any, tmp_path: Path, file: str, begin: str):
    ended = localconc("timeline", "-o", str(tmp_path / file))
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout == f"Wrote {tmp_path / file}\n"
    assert (tmp_path / file).read_text().startswith(begin)


def test_timeline_shows_the_limits_that_were_named_and_who_waits_for_them(
    story: list[Acquisition], localconc: Any, tmp_path: Path
):
    def wait() -> None:
        with concurrency("database", label="late"):
            pass

    occupancy = acquire("database", label="slow")
    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: limits.read_waiters("database"))
    traces = {}
    for name in ("mail", "database"):
        assert localconc("timeline", name, "-o", str(tmp_path / "t.json")).status == 0
        traces[name] = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    occupancy.release()
    thread.join()
    for name, events in traces.items():
        assert [event["args"]["name"] for event in events if event["name"] == "process_name"] == [name]
    now = {(event["args"]["label"], event["args"]["ending"]) for event in traces["database"] if event["ph"] == "X"}
    assert {("slow", "held"), ("late", "waiting"), ("import", "released")} <= now


def test_an_ending_that_there_is_not_is_wrong_usage(story: list[Acquisition], localconc: Any, tmp_path: Path):
    ended = localconc("timeline", "-o", str(tmp_path / "t.png"))
    assert ended.status == 2
    assert "must be a file that ends in .html, .svg or .json" in ended.stderr
    assert os.listdir(tmp_path) in ([], ["home"])


def test_a_file_that_cannot_be_written_is_one_line(story: list[Acquisition], localconc: Any, tmp_path: Path):
    ended = localconc("timeline", "-o", str(tmp_path / "missing" / "t.html"))
    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr == f"localconc: '{tmp_path}/missing/t.html' can't be written (No such file or directory)\n"


@pytest.mark.parametrize("target", ["a directory.svg", "a file/t.svg"])
def test_a_place_that_can_be_no_file_is_one_line(story: list[Acquisition], localconc: Any, tmp_path: Path, target: str):
    (tmp_path / "a directory.svg").mkdir()
    (tmp_path / "a file").write_text("")
    ended = localconc("timeline", "-o", str(tmp_path / target))
    assert (ended.status, ended.stdout) == (1, "")
    assert re.fullmatch(r"localconc: '.*svg' can't be written \((Is|Not) a directory\)\n", ended.stderr)


def test_names_add_nothing_to_files(recorded: Recorder, localconc: Any, tmp_path: Path):
    hostile, name = HOSTILE.replace(SURROGATE, ""), HOSTILE.translate(dict.fromkeys(map(ord, "/%&><\0\udcff")))
    limits.create_limit(name, 1)
    recorded(served(name, 1, [Job(0, 3, label=hostile, command=hostile), Job(1, 3, thread=hostile, command=hostile)]))
    for ending in ("html", "svg", "json"):
        assert localconc("timeline", name, "-o", str(tmp_path / f"t.{ending}")).status == 0
    page, picture, trace = ((tmp_path / f"t.{ending}").read_text() for ending in ("html", "svg", "json"))
    for text in (page, picture, trace):
        assert_harmless_on_a_terminal(text)
    assert page.count("<script") == 2
    assert "<img" not in page + picture
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture).iter()}
    assert tags <= {"svg", "title", "style", "rect", "path", "text"}
    assert len([event for event in json.loads(trace)["traceEvents"] if event["ph"] == "X"]) == 3


def test_an_old_file_survives_if_the_new_one_cannot_be_written(
    story: list[Acquisition], localconc: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_an_empty_history_is_no_file(localconc: Any, tmp_path: Path):
    ended = localconc("timeline", "-o", str(tmp_path / "t.html"))
    assert (ended.status, ended.stdout) == (1, "")
    assert "Nothing was acquired yet" in ended.stderr
    assert not (tmp_path / "t.html").exists()
