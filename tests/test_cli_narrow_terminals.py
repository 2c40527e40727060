"""The command line on a narrow terminal: names and pids stay whole, and less important columns are left out."""

from __future__ import annotations

import os

import pytest

from localconc import create_limit
from localconc.sync import concurrency
from tests.kit.systems import needs_fork
from tests.test_cli_terminal import terminal

pytestmark = needs_fork

NARROW = [24, 40, 56]
NAME = "a-rather-long-name-of-a-limit"


def shown(*arguments: str, columns: int) -> list[list[str]]:
    """Run a command on a terminal of this width; return its lines as words."""
    with terminal(*arguments, columns=columns, rows=40) as screen:
        assert screen.end() == 0
        return [line.split() for line in screen.text.splitlines()]


def column(lines: list[list[str]], header: str) -> str:
    """Put together what stands in the first column."""
    first = next(number for number, words in enumerate(lines) if words[:1] == [header])
    return "".join(words[0] for words in lines[first + 1 :])


@pytest.mark.parametrize("columns", NARROW)
def test_ls_keeps_the_names_and_the_figures(columns: int) -> None:
    create_limit(NAME, 100, slot_decay_per_second=100 / 60)
    lines = shown("ls", columns=columns)
    assert column(lines, "NAME") == NAME
    assert lines[1][2] == "0/100"


@pytest.mark.parametrize("columns", NARROW)
def test_inspect_keeps_the_pids_and_the_commands(columns: int) -> None:
    create_limit("gpu", 2)
    with concurrency("gpu", label="nightly build of everything"):
        lines = shown("inspect", "gpu", columns=columns)
    header = next(words for words in lines if words[:1] == ["PID"])
    assert header[-1] == "COMMAND"
    assert lines[lines.index(header) + 1][0] == str(os.getpid())


@pytest.mark.parametrize("columns", NARROW)
def test_history_keeps_the_names_and_the_pids(columns: int) -> None:
    create_limit(NAME, 2)
    with concurrency(NAME, label="nightly build of everything"):
        lines = shown("history", columns=columns)
    header, first, *_ = lines
    assert str(os.getpid()) in first
    assert "PID" in header
    folded = "".join(words[header.index("LIMIT") if number == 0 else 0] for number, words in enumerate(lines[1:]))
    assert folded == NAME


@pytest.mark.parametrize("columns", NARROW)
def test_stats_keep_the_names_and_the_medians(columns: int) -> None:
    create_limit("gpu", 2)
    with concurrency("gpu"):
        lines = shown("stats", columns=columns)
    header = next(words for words in lines if words[:1] == ["LIMIT"])
    first = lines[lines.index(header) + 1]
    assert first[0] == "gpu"
    assert "P50" in header
    assert "0s" in first


def test_a_wide_terminal_shows_every_column() -> None:
    create_limit(NAME, 100)
    (header, *_) = shown("ls", columns=100)
    assert header == ["NAME", "SLOTS", "WAITING", "DECAY", "STATE", "CHANGED"]
