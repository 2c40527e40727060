"""The command line: what users write stays text, whoever reads it on a terminal."""

from __future__ import annotations

import pytest

from localconc import create_limit, read_waiters
from localconc.cli.output.text import literal, one_line
from localconc.sync import concurrency
from tests.kit.command_line import localconc, ok, running, until

#: Turns red, moves up, reverses the direction of writing, hides, and begins a new line.
HOSTILE = "a\x1b[31m\x9b1A\u202eevil\u2066\u200b\r\nb"
FORBIDDEN = frozenset(HOSTILE) - set("a[31m1AevilB\nb")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain naïve ☃ 名前", "plain naïve ☃ 名前"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("\x07\x00\x7f", "\\x07\\x00\\x7f"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\u2066\u2069\u200f\u061c", "\\u2066\\u2069\\u200f\\u061c"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_what_would_act_on_a_terminal_or_hide_is_written_out(text: str, shown: str) -> None:
    assert literal(text) == shown


def test_an_error_of_several_lines_becomes_one() -> None:
    assert one_line("first\n   second\x1b[1m\n") == "first second\\x1b[1m"


def _is_harmless(text: str) -> bool:
    return not FORBIDDEN & set(text)


@pytest.mark.sweep
def test_no_name_of_a_limit_acts_on_a_terminal() -> None:
    create_limit(HOSTILE, 1)
    for command in (("ls",), ("inspect", HOSTILE), ("watch",), ("update", HOSTILE, "--limit", "2"), ("doctor",)):
        assert _is_harmless(ok(*command))
    for command in (
        ("inspect", HOSTILE + "x"),
        ("create", HOSTILE, "--limit", "1"),
        ("ls", "--" + HOSTILE),
        (HOSTILE,),
    ):
        result = localconc(*command)
        assert result.returncode
        assert _is_harmless(result.stdout + result.stderr)


def test_no_command_that_holds_or_waits_acts_on_a_terminal() -> None:
    create_limit("gpu", 1)
    with running("run", "gpu", "--", "sh", "-c", f"echo in; read line #{HOSTILE}") as holder:
        holder.read_line()
        with running("run", "gpu", "--", "echo", HOSTILE) as waiter:
            until(lambda: read_waiters("gpu"))
            for command in (("inspect", "gpu"), ("watch",)):
                text = ok(*command)
                assert "evil" in text
                assert _is_harmless(text)
            timed_out = localconc("run", "gpu", "--timeout", "0", "--", "true")
            assert _is_harmless(timed_out.stderr)
            waiter.close()
        assert _is_harmless(ok("reset", "gpu", "--yes"))
        holder.end()


def test_no_label_acts_on_a_terminal() -> None:
    create_limit("gpu", 1)
    with concurrency("gpu", label=HOSTILE):
        for command in (("inspect", "gpu"), ("watch",)):
            text = ok(*command)
            assert "evil" in text
            assert _is_harmless(text)
