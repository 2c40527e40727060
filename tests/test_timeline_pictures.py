"""The timeline as a picture, on a terminal, and as a trace."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from rich.text import Text

from localconc.cli.output.timeline.clock import ticks
from localconc.cli.output.timeline.model import Timeline, timeline_of
from localconc.cli.output.timeline.svg import MAX_LANES, timeline_svg
from localconc.cli.output.timeline.text import timeline_text
from localconc.cli.output.timeline.trace import timeline_trace
from tests.kit.hostile import HOSTILE, assert_harmless_on_a_terminal
from tests.kit.made_up_history import BEGIN, Job, acquired, limit, served, waiter

SVG = "{http://www.w3.org/2000/svg}"


def story(**options) -> Timeline:
    jobs = [
        Job(0, 50, pid=1, label="import"),
        Job(10, 20, pid=2, label="web"),
        Job(20, 10, pid=3, label="report", ending="killed"),
    ]
    return timeline_of(served("db", 1, jobs), until=BEGIN + 100, limits=[limit("db", 1)], **options)


def hostile() -> Timeline:
    jobs = [Job(0, 10, pid=1, label=HOSTILE, command=HOSTILE, thread=HOSTILE), Job(1, 10, pid=2, command=HOSTILE)]
    return timeline_of(served(HOSTILE, 1, jobs), until=BEGIN + 80, limits=[limit(HOSTILE, 1)])


def crowd(bars: int = 10_000, processes: int = 60) -> Timeline:
    jobs = [Job(n * 0.11, 0.3 + n % 7 / 10, pid=n % processes) for n in range(bars)]
    return timeline_of(served("db", 6, jobs), until=BEGIN + bars * 0.11 + 60, limits=[limit("db", 6)])


# ---- a picture -------------------------------------------------------------------------------------------------------


def shapes(picture: str, kind: str) -> list[str]:
    """The outlines of one kind."""
    return [
        path.get("d", "") for path in ElementTree.fromstring(picture).iter(f"{SVG}path") if path.get("class") == kind
    ]


def words(picture: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_a_picture_shows_waits_holds_the_killed_and_the_limit():
    picture = timeline_svg(story())
    assert len(shapes(picture, "waiting")) == 2
    assert len(shapes(picture, "holding")) + len(shapes(picture, "notable")) == 3
    assert len(shapes(picture, "killed")) == len(shapes(picture, "cross")) == 1
    assert len(shapes(picture, "limit")) == 1
    assert {"import", "web", "report", "limit 1", "waiting at once", "50.0s"} <= set(words(picture))


def test_a_picture_follows_the_colour_scheme_and_fetches_nothing():
    picture = timeline_svg(story())
    assert "prefers-color-scheme: dark" in picture
    assert re.findall(r"https?://[^\"]*", picture) == ["http://www.w3.org/2000/svg"]
    assert "<script" not in picture


def test_a_picture_of_many_bars_stays_small_and_keeps_the_busiest_lanes():
    picture = timeline_svg(crowd())
    assert len(picture) < 2_000_000
    assert f"and {60 - MAX_LANES} more" in words(picture)


def test_names_add_nothing_to_a_picture():
    picture = timeline_svg(hostile())
    picture.encode()
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(picture).iter()}
    assert tags <= {"svg", "title", "style", "rect", "path", "text"}
    assert_harmless_on_a_terminal(picture)


def test_bars_that_are_held_or_waited_for_now_point_onwards():
    now = timeline_of(
        [acquired(Job(0, 0, pid=1, ending="held"))], until=BEGIN + 50, limits=[limit()], waiters=[waiter(since=10)]
    )
    picture = timeline_svg(now)
    assert any("l7 6l-7 6z" in path for path in shapes(picture, "edge"))
    assert any("l7 6l-7 6z" in path for path in shapes(picture, "notable"))


def test_a_picture_marks_an_end_that_was_not_seen():
    lost = timeline_of([acquired(Job(20, 0, ending="unseen"))], until=BEGIN + 100, limits=[limit()])
    assert "?" in words(timeline_svg(lost))
    assert "?" not in words(timeline_svg(story()))


# ---- a terminal ------------------------------------------------------------------------------------------------------


def lines(found: Timeline, width: int = 100, *, ascii_only: bool = False) -> list[str]:
    return [line.plain for line in timeline_text(found, width, ascii_only=ascii_only)]


def drawn(found: list[str], name: str, edge: str = "│") -> str:
    [line] = [line for line in found if line.startswith(name) and edge in line]
    return line.partition(edge)[2]


def test_a_terminal_shows_a_line_for_each_holder():
    found = lines(story())
    assert re.fullmatch(r"█+", drawn(found, "import"))
    assert re.fullmatch(r" +·+█+", drawn(found, "web"))
    assert re.fullmatch(r" +·+█+✕", drawn(found, "report"))
    assert set(drawn(found, "waiting at once")) <= set(" ▁▂▃▄▅▆▇█")


def test_cells_stand_for_equal_times():
    found = lines(story())
    holds, waits = len(drawn(found, "import")), drawn(found, "web").count("·")
    assert holds * 40 / 50 == pytest.approx(waits, abs=1)


def test_a_terminal_without_unicode_gets_ascii():
    found = lines(story(), ascii_only=True)
    assert all(line.isascii() for line in found)
    assert re.fullmatch(r" +\.+#+x", drawn(found, "report", "|"))


def test_ascii_lines_hold_no_other_letters_of_names_either():
    jobs = [Job(0, 10, pid=1, label="überträger"), Job(1, 10, pid=2, label="日本語")]
    found = timeline_of(served("größe", 1, jobs), until=BEGIN + 30, limits=[limit("größe", 1)])
    assert all(line.isascii() for line in lines(found, ascii_only=True))


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, ascii_only: bool):
    wide = [Job(n, 5, pid=n, label="日本語の長い名前" * 3, command="python x.py " + "y" * 300) for n in range(5)]
    for found in (story(), hostile(), timeline_of(served("db", 1, wide), until=BEGIN + 60, limits=[limit()])):
        for line in lines(found, width, ascii_only=ascii_only):
            assert Text(line).cell_len <= width, line


def test_names_change_nothing_on_a_terminal():
    assert_harmless_on_a_terminal("\n".join(lines(hostile())))


def test_a_terminal_marks_an_instant_and_an_end_that_was_not_seen():
    jobs = [
        acquired(Job(10, 0, pid=1, label="rate", ending="instant")),
        acquired(Job(20, 0, pid=2, label="lost", ending="unseen")),
    ]
    found = lines(timeline_of(jobs, until=BEGIN + 100, limits=[limit()]))
    assert drawn(found, "rate").strip() == "◆"
    assert drawn(found, "lost").strip() == "█?"


def test_bars_outside_of_the_window_are_not_drawn():
    found = lines(story(since=BEGIN + 60))
    assert drawn(found, "import") == ""
    assert drawn(found, "web").startswith("█")


# ---- a trace ---------------------------------------------------------------------------------------------------------


def events(found: Timeline, kind: str) -> list[dict]:
    return [event for event in json.loads(timeline_trace(found))["traceEvents"] if event["ph"] == kind]


def test_a_trace_has_a_slice_for_each_wait_and_hold():
    slices = [(one["name"], one["dur"] / 1e6, one["args"]["label"]) for one in events(story(), "X")]
    assert slices == [
        ("holding", pytest.approx(50), "import"),
        ("waiting", pytest.approx(40), "web"),
        ("holding", pytest.approx(20), "web"),
        ("waiting", pytest.approx(50), "report"),
        ("holding (killed)", pytest.approx(10), "report"),
    ]


def test_slices_on_one_track_of_a_trace_do_not_overlap():
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for one in events(crowd(2_000), "X"):
        tracks.setdefault((one["pid"], one["tid"]), []).append((one["ts"], one["ts"] + one["dur"]))
    for spans in tracks.values():
        spans.sort()
        for (_, end), (begin, _) in pairwise(spans):
            assert begin >= end - 1


def test_arrows_of_a_trace_lead_from_a_release_to_whom_it_let_in():
    found = story()
    tracks = {event["tid"]: event["args"]["name"] for event in events(found, "M") if event["name"] == "thread_name"}
    arrows = [
        (tracks[begin["tid"]], tracks[end["tid"]])
        for begin, end in zip(events(found, "s"), events(found, "f"), strict=True)
    ]
    assert [(one.partition(" ")[0], other.partition(" ")[0]) for one, other in arrows] == [
        ("import", "web"),
        ("web", "report"),
    ]


def test_a_trace_counts_slots_and_waiters():
    counted = {(event["name"], *event["args"].values()) for event in events(story(), "C")}
    assert {("slots in use", 1), ("waiting at once", 2), ("waiting at once", 0)} <= counted


def test_a_trace_is_ascii_whatever_the_names():
    trace = timeline_trace(hostile())
    assert trace.isascii()
    assert_harmless_on_a_terminal(trace)


# ---- the axis --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.003, 0.2, 7, 100, 4_000, 90_000, 3_000_000, 400_000_000])
def test_an_axis_has_a_few_round_moments(seconds: float):
    found = ticks(BEGIN, BEGIN + seconds, 8)
    assert 1 <= len(found) <= 9
    assert all(BEGIN - 1e-3 <= moment <= BEGIN + seconds + 1e-3 for moment, _ in found)
    assert len({label for _, label in found}) == len(found) or seconds > 31_000_000


@pytest.mark.parametrize("width", range(40, 130, 3))
def test_what_stands_before_a_bar_ends_with_an_ellipsis_if_it_is_cut_and_process_ids_are_whole(width):
    job = Job(0, 30, pid=19859, label="import", command="python a_long_script.py --seed 271828")
    found = timeline_of(served("db", 1, [job]), until=BEGIN + 60, limits=[limit("db", 1)])
    [line] = [line for line in lines(found, width) if line.startswith("import")]
    name = re.split(r"\s*│", line)[0]
    whole = "import  a_long_script.py --seed 271828 · pid 19859"
    kept = name.removesuffix("…")
    assert whole.startswith(kept)
    assert kept == whole or name.endswith("…") or name == "import"
    assert re.search(r"\d", kept) is None or re.search(r"271828( · pid 19859)?$", kept), name
