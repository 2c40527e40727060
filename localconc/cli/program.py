"""From arguments to an exit status: the app is built and invoked, and whatever goes wrong becomes one line."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import typer
import typer.main

from localconc.cli.app import build
from localconc.cli.faults import FAILED, INTERRUPTED, WRONG_USAGE, CommandError, say
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "localconc"


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; never raises for what its user can cause."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger(NAME).addHandler(_OneLine())
    try:
        status = _invoke(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return FAILED
    except OSError as error:
        say(error)
        _discard_output()
        return FAILED
    return status


def _invoke(arguments: Sequence[str]) -> int:
    command = typer.main.get_command(build(arguments[0] if arguments else None))
    try:
        status = command.main(args=list(arguments), prog_name=NAME, standalone_mode=False)
    except KeyboardInterrupt:
        return INTERRUPTED
    except typer.Abort as abort:
        return INTERRUPTED if isinstance(abort.__cause__, KeyboardInterrupt) else FAILED
    except Exception as error:
        status = _status_of(error)
        if status is None:
            raise
        say(_explained(error))
    return status if isinstance(status, int) else 0


def _status_of(error: Exception) -> int | None:
    """The exit status for an error that a user can cause; None for one that only a mistake of ours can."""
    if isinstance(error, CommandError):
        return error.status
    if isinstance(error, LocalconcError):
        return FAILED
    if isinstance(error, ValueError | TypeError) and _is_about_arguments(error):
        return WRONG_USAGE
    if hasattr(error, "format_message"):  # the parser's
        return int(getattr(error, "exit_code", WRONG_USAGE))
    return None


def _explained(error: Any) -> str:
    if not hasattr(error, "format_message"):
        return str(error)
    path = getattr(getattr(error, "ctx", None), "command_path", NAME)
    hint = " Put -- before the command." if path.endswith(" run") and "No such option" in str(error) else ""
    return f"{error.format_message().rstrip('.')}.{hint} Try '{path} --help'."


def _is_about_arguments(error: BaseException) -> bool:
    """Whether the library refused an argument, rather than something being broken."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return raised_in in ("localconc._engine.arguments", "localconc._engine.calls", "localconc.limits")


def _discard_output() -> None:
    """Leave nothing that the interpreter would fail to write at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


class _OneLine(logging.Handler):
    """Warnings of the library, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        missing = _NOT_SET.match(message)
        if missing is not None:
            message = f"The limit {missing[1]} is not set, so it limits nothing{_remedy(missing[1])}"
        say(f"warning: {message}")


#: How the library says it, with a remedy for those who write Python.
_NOT_SET = re.compile(r"The limit (['\"].*['\"]) is not configured, so it is not enforced\.")


def _remedy(quoted_name: str) -> str:
    from localconc.cli.lookup import suggestion

    try:
        nearest = suggestion(ast.literal_eval(quoted_name))
    except LocalconcError:
        nearest = ""
    return nearest if nearest.startswith(";") else ". Make it with localconc create, or give --limit N"
