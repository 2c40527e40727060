"""All commands, with their examples. A command's module is loaded, and the parser built, only for what was called."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, NamedTuple

import typer

from localconc.cli.parsing import Command, Group


class Entry(NamedTuple):
    """Where a command is, and how it may be used."""

    module: str
    function: str
    examples: tuple[str, ...]


_LIMITS, _USE, _TRANSFER = "limits_commands", "use_commands", "transfer_commands"

COMMANDS = {
    "ls": Entry(_LIMITS, "ls", ("ls", "ls -o json | jq '.[] | select(.waiters > 0).name'")),
    "create": Entry(_LIMITS, "create", ("create gpu --limit 2", "create api --limit 10 --rate 100/minute")),
    "inspect": Entry(_LIMITS, "inspect", ("inspect gpu", "inspect gpu -o json | jq '.holders[].pid'")),
    "update": Entry(_LIMITS, "update", ("update gpu --limit 4", "update api --rate 5/second --name web-api")),
    "enable": Entry(_LIMITS, "enable", ("enable gpu",)),
    "disable": Entry(_LIMITS, "disable", ("disable gpu",)),
    "delete": Entry(_LIMITS, "delete", ("delete gpu", "delete gpu --yes")),
    "reset": Entry(_LIMITS, "reset", ("reset gpu --yes",)),
    "run": Entry(
        _USE,
        "run",
        ("run gpu -- python train.py", "run db,api --occupy 2 --timeout 60 -- make load", "run ci --limit 4 -- make"),
    ),
    "rate": Entry(_USE, "rate_", ("rate api --limit 10 --rate 100/minute", 'rate api --timeout 30 && curl "$url"')),
    "watch": Entry("watch_command", "watch", ("watch", "watch gpu api")),
    "doctor": Entry("doctor_command", "doctor", ("doctor", "doctor --repair")),
    "export": Entry(_TRANSFER, "export", ("export limits.json", "export | ssh other localconc import -")),
    "import": Entry(_TRANSFER, "import_", ("import limits.json",)),
    "path": Entry(_LIMITS, "path", ("path",)),
}


def build(called: str | None) -> typer.Typer:
    """The app with the command that was called; with all of them where it is not known which."""
    app = typer.Typer(
        cls=Group,
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(epilog=_epilog("create gpu --limit 2", "run gpu -- python train.py"))(_main)
    for name in [called] if called in COMMANDS else COMMANDS:
        entry = COMMANDS[name]
        function = getattr(import_module(f"localconc.cli.{entry.module}"), entry.function)
        app.command(name, cls=Command, epilog=_epilog(*entry.examples))(function)
    return app


def _epilog(*examples: str) -> str:
    lines = "\n".join(f"  localconc {example}" for example in examples)
    return f"\b\nExample{'s' if len(examples) > 1 else ''}:\n{lines}"


def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", show_default=False)] = False,
) -> None:
    """Concurrency limits and rate limits of this machine: see them, set them, use them."""
    if version:
        import localconc

        print(f"localconc {localconc.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
