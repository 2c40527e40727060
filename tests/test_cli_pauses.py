"""The command line: what it says of pauses."""

from __future__ import annotations

import re

import pytest

from localconc import create_limit, update_limit
from tests.kit.command_line import ok


def test_pause_and_inspect_say_that_a_disabled_limit_admits_every_request() -> None:
    create_limit("api", 1, active=False)
    assert "It is disabled: until it is enabled, it admits every request" in ok("pause", "api", "30s")
    shown = ok("inspect", "api")
    assert "Disabled: every request is admitted" in shown
    assert "no request is admitted" not in shown
    ok("enable", "api")
    assert "no request is admitted" in ok("inspect", "api")


@pytest.mark.parametrize(
    ("duration", "moment"), [("30d", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), ("2h", r"\d\d:\d\d:\d\d")]
)
def test_a_pause_that_ends_a_day_ahead_or_later_shows_its_date(duration: str, moment: str) -> None:
    create_limit("api", 1)
    assert re.search(rf"until {moment}, for ", ok("pause", "api", duration))
    assert re.search(rf"more, until {moment}: ", ok("inspect", "api"))


def test_a_shorter_second_pause_says_that_the_later_end_counts() -> None:
    create_limit("api", 1)
    assert "later end" not in ok("pause", "api", "1h")
    assert "it was paused already, and of two pauses the later end counts" in ok("pause", "api", "5s")
    assert "later end" not in ok("pause", "api", "2h")


def test_resume_says_that_a_limit_was_not_paused() -> None:
    create_limit("api", 1)
    assert ok("resume", "api") == "There was no pause to end. 'api': 1 slot\n"
    update_limit("api", limit=0)
    said = "There was no pause to end. 'api': paused (limit 0). Raise it with localconc update api --limit N\n"
    assert ok("resume", "api") == said
