"""Failures of commands, each with its exit status."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """The command line lacks something, or asks for something impossible."""

    status = WRONG_USAGE


@contextmanager
def refused_arguments() -> Iterator[None]:
    """Turn the library's refusal of an argument into wrong usage; wrap nothing but a call that passes arguments on.

    Raises:
        WrongUsage: the library raised `ValueError` or `TypeError`, as it does for a bad argument.
    """
    try:
        yield
    except LocalconcError:  # some of them are a ValueError, too
        raise
    except (ValueError, TypeError) as error:
        raise WrongUsage(str(error)) from None
