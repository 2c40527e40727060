"""How a command ends that did not work out: one line on stderr, and an exit status."""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

FAILED = 1
WRONG_USAGE = 2
TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127
INTERRUPTED = 130


class CommandError(Exception):
    """A command failed; the message says why and what to do."""

    status = FAILED

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status


class WrongUsage(CommandError):
    """The command was not given what it needs, or more than it can use."""

    status = WRONG_USAGE


def say(message: object) -> None:
    """Print one line on stderr; where nobody can read it, that changes nothing else."""
    try:
        print(f"localconc: {one_line(str(message))}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Leave nothing in a stream that the interpreter would fail to write at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def one_line(text: str) -> str:
    """A text without line breaks, and with other control characters written out."""
    return literal(re.sub(r"\s*\n\s*", " ", text.strip()))


def literal(text: str) -> str:
    """A text as it may stand on a terminal: what would move the cursor or change colours is written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
