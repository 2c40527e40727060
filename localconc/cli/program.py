"""From the arguments of a command line to its exit status."""

from __future__ import annotations

import io
import logging
import os
import shlex
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from localconc.cli import options
from localconc.cli.errors import FAILED, CommandError
from localconc.cli.names import COMPLETION_VARIABLE, nearest_names, suggestion
from localconc.cli.output.text import discard, say
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "localconc"

#: In which module of `commands` each command is, and under which name.
COMMANDS = {
    "ls": ("limits", "ls"),
    "create": ("limits", "create"),
    "ensure": ("limits", "ensure"),
    "inspect": ("limits", "inspect"),
    "update": ("limits", "update"),
    "enable": ("limits", "enable"),
    "disable": ("limits", "disable"),
    "pause": ("limits", "pause"),
    "resume": ("limits", "resume"),
    "delete": ("limits", "delete"),
    "reset": ("limits", "reset"),
    "run": ("use", "run"),
    "rate": ("use", "rate"),
    "watch": ("watch", "watch"),
    "history": ("history", "history"),
    "stats": ("history", "stats"),
    "timeline": ("history", "timeline"),
    "doctor": ("doctor", "doctor"),
    "export": ("transfer", "export"),
    "import": ("transfer", "import_"),
    "path": ("setup", "path"),
    "completion": ("setup", "completion"),
}


class _Commands(click.Group):
    """All commands; the module of one is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"localconc.cli.commands.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        unknown = args and args[0] not in COMMANDS and not args[0].startswith("-")
        if unknown and not ctx.resilient_parsing:
            nearest = " or ".join(map(repr, nearest_names(args[0], list(COMMANDS), 0.6)))
            hint = f" Did you mean {nearest}?" if nearest else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    NAME,
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=options.examples_text("create gpu --limit 2", "run gpu -- python train.py"),
)
@click.option("--version", is_flag=True, help="Show the version.")
@click.pass_context
def localconc(context: click.Context, version: bool) -> None:
    """Concurrency limits and rate limits of this machine: see them, set them, use them."""
    if version:
        import localconc as package

        print(f"{NAME} {package.__version__}")
        context.exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        context.exit()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; nothing that its user can cause raises, except Ctrl-C before there is a command."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger(NAME).addHandler(_OneLine())
    try:
        status = _invoke(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            is_about_a_file = error.filename or isinstance(error, FileNotFoundError)
            say(error if is_about_a_file else f"The output can't be written ({error.strerror})")
        discard(sys.stdout)
        return FAILED
    return status


def _open_closed_streams() -> None:
    """Open standard streams that were closed (`>&-`) on nothing, or files of ours would get their numbers.

    A command that is run still finds them closed. Writing to a closed stdout fails, as on a full disk.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)  # gets the lowest free number
            setattr(sys, name, os.fdopen(null, mode))


def _invoke(arguments: list[str]) -> int:
    asked_by_a_shell = os.environ.get(COMPLETION_VARIABLE)
    if asked_by_a_shell:
        from click.shell_completion import shell_complete

        return shell_complete(localconc, {}, NAME, COMPLETION_VARIABLE, asked_by_a_shell)
    try:
        with localconc.make_context(NAME, arguments) as context:
            status = localconc.invoke(context)
    except click.exceptions.Exit as end:
        status = end.exit_code
    except (click.ClickException, CommandError, LocalconcError) as error:
        status = getattr(error, "exit_code", getattr(error, "status", FAILED))
        say(_explained(error) if isinstance(error, click.ClickException) else error)
    return status if isinstance(status, int) else 0


def _explained(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context: Any = getattr(error, "ctx", None)
    if context is None:
        return f"{message}."
    needs_dashes = isinstance(error, click.NoSuchOption) and context.info_name == "run"
    hint = " Put -- before the command." if needs_dashes else ""
    return f"{message}{'' if message.endswith('?') else '.'}{hint} Try '{context.command_path} --help'."


class _OneLine(logging.Handler):
    """Writes what the library logs on stderr, a line for each record.

    A warning of the library says what it is about: `localconc_kind` (as `not configured`), `localconc_limit` (a name).
    """

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().removeprefix(f"{NAME}: ")
        name = getattr(record, "localconc_limit", None)
        if getattr(record, "localconc_kind", None) == "not configured" and name is not None:
            message = f"There is no limit {name!r}, so it limits nothing{_remedy(name)}"
        elif name is not None:  # what a program would call, in the words of a shell
            ensure = f"localconc ensure {shlex.quote(name)} --limit N"
            message = message.replace(f"localconc.ensure_limit({name!r}, limit=N)", ensure)
        say(message if record.levelno < logging.WARNING else f"warning: {message}")


def _remedy(name: str) -> str:
    try:
        nearest = suggestion(name)
    except LocalconcError:
        nearest = ""
    return nearest if nearest.startswith(";") else ". Make it with localconc create, or give --limit N"
