"""The command line: how pauses, numbers, labels, estimates and what does not fit are shown to people."""

from __future__ import annotations

import pytest
from rich.console import ConsoleDimensions

from localconc import create_limit
from localconc.cli.output import json, screen, status_line, tables
from localconc.cli.snapshot import Entry, LimitStatus, take_snapshot
from localconc.sync import concurrency

WALL = 1_000_000.0
HOLDER = Entry(1, 4711, 2, "MainThread", "python train.py", "nightly", (0, 3), WALL - 12)
WAITER = Entry(2, 4712, 1, "MainThread", "python test.py", "", (), WALL - 5)


@pytest.fixture
def status() -> LimitStatus:
    """A limit of 2 with a holder and a waiter, of which the store knows that a slot is held for a minute."""
    create_limit("gpu", 2)
    with concurrency("gpu"):
        pass
    with concurrency("gpu", 2):
        (found,) = take_snapshot().limits
    return found._replace(holders=[HOLDER], waiters=[WAITER], avg_slot_occupancy_seconds=60.0)


def _line(status: LimitStatus) -> str:
    return status_line.describe(status, 0, WAITER, WALL)


def test_the_line_estimates_from_an_average(status: LimitStatus) -> None:
    assert _line(status).startswith("Waiting for 'gpu' 5s: 1st in line, about ")


def test_the_line_says_longer_than_usual_only_if_every_holder_is_late(status: LimitStatus) -> None:
    late = HOLDER._replace(since=WALL - 500)
    assert "longer than usual" in _line(status._replace(holders=[late]))
    assert "longer than usual" not in _line(status._replace(holders=[late, HOLDER]))


def test_a_pause_shows_what_is_left_of_it_and_is_not_shown_afterwards(status: LimitStatus) -> None:
    paused, over = status._replace(paused_until=WALL + 12), status._replace(paused_until=WALL - 1)
    assert tables.state_text(paused, WALL).plain == "paused 12s"
    assert tables.state_text(over, WALL).plain == "enabled"
    assert "paused for 12s" in _line(paused)
    assert "paused" not in _line(over)


def test_the_json_of_a_pause_is_its_end(status: LimitStatus) -> None:
    assert json.limit_object(status)["paused_until"] is None
    assert json.limit_object(status._replace(paused_until=0.0))["paused_until"] == "1970-01-01T00:00:00.000000+00:00"


def _watched(status: LimitStatus) -> str:
    snapshot = take_snapshot()._replace(wall=WALL, limits=[status])
    return "\n".join(screen.as_text(line) for line in screen.lines(snapshot, 120, ascii_only=False))


def test_labels_and_numbers_stand_beside_the_holders_in_both_views(
    status: LimitStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds  pid 4711  2x  12s  #0,3  nightly: python train.py" in _watched(status)
    tables.print_inspection(status, take_snapshot()._replace(wall=WALL))
    holders, waiters = capsys.readouterr().out.split("Waiting: 1")
    assert "NUMBERS" in holders
    assert "nightly" in holders
    assert "12s" in holders
    assert "NUMBERS" not in waiters
    assert "LABEL" not in waiters


def test_a_label_is_told_to_those_who_wait(status: LimitStatus) -> None:
    assert "held by pid 4711 for 12s (nightly: python train.py)" in _line(status)


def test_what_fits_the_screen_is_not_scrolled_and_the_rest_no_further_than_its_end() -> None:
    size = ConsoleDimensions(80, 10)
    picture = screen.Picture()
    few, many = [[("line", "")]] * 10, [[(f"line {number}", "")] for number in range(13)]
    assert picture.show(few, size)
    picture.scroll(1)
    assert not picture.show(few, size)
    assert picture.show(many, size)
    picture.scroll(100)
    assert picture.show(many, size)
    picture.scroll(1)
    assert not picture.show(many, size)
    picture.scroll(-3)
    assert picture.show(many, size)
    picture.scroll(-1)
    assert not picture.show(many, size)
