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

from localconc.cli.app import COMMANDS, build
from localconc.cli.faults import FAILED, INTERRUPTED, WRONG_USAGE, CommandError, discard, say
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "localconc"


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; what its user can cause never raises, but for Ctrl-C before there is a command."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger(NAME).addHandler(_OneLine())
    try:
        status = _invoke(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            has_to_do_with_a_file = error.filename or isinstance(error, FileNotFoundError)
            say(error if has_to_do_with_a_file else f"The output can't be written ({error.strerror})")
        discard(sys.stdout)
        return FAILED
    return status


def _open_closed_streams() -> None:
    """Give standard streams that were closed (`>&-`) something to stand on, lest files of ours get their numbers.

    A command that is run still finds them closed. What is written to a closed stdout fails, as on a full disk.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)  # gets the lowest free number
            setattr(sys, name, os.fdopen(null, mode))


def _invoke(arguments: Sequence[str]) -> int:
    command = typer.main.get_command(build(arguments[0] if arguments else None))
    try:
        status = command.main(args=list(arguments), prog_name=NAME, standalone_mode=False)
    except typer.Abort as abort:
        return INTERRUPTED if isinstance(abort.__cause__, KeyboardInterrupt) else FAILED
    except Exception as error:
        status = _status_of(error)
        if status is None:
            raise
        say(_explained(error, arguments))
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


def _explained(error: Any, arguments: Sequence[str]) -> str:
    if not hasattr(error, "format_message"):
        return str(error)
    path = f"{NAME} {arguments[0]}" if arguments[0] in COMMANDS else NAME
    hint = " Put -- before the command." if path.endswith(" run") and "No such option" in str(error) else ""
    message = error.format_message().rstrip(".")
    return f"{message}{'' if message.endswith('?') else '.'}{hint} Try '{path} --help'."


def _is_about_arguments(error: BaseException) -> bool:
    """Whether the library refused an argument, rather than something being broken."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return raised_in in ("localconc._engine.arguments", "localconc._engine.calls", "localconc.limits")


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
