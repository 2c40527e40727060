"""Commands that help to set localconc up."""

from __future__ import annotations

import os
import sys

import click

from localconc import limits
from localconc.cli import engine_access, options
from localconc.cli.names import COMPLETION_VARIABLE
from localconc.cli.output import json
from localconc.cli.output.text import literal, say

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=options.Command, examples=("path", "path -o json"))
@options.output
def path(as_json: bool) -> None:
    """Show where the database is, or the server that keeps the limits, and on stderr why it is there.

    stderr also names other homes of this user: each is a set of limits of its own. It stays empty if there are none and
    it is no terminal, so that scripts can use the path.
    """
    if engine_access.is_on_server():
        _show_server(as_json)
        return
    home = limits.home()
    others = engine_access.other_homes()
    if as_json:
        json.print_json(
            {
                "home": str(home),
                "database": str(home / engine_access.DATABASE_NAME),
                "source": engine_access.home_source(),
                "other_homes": [str(other) for other in others],
            }
        )
        return
    database = str(home / engine_access.DATABASE_NAME)
    click.echo(literal(database) if sys.stdout.isatty() else os.fsencode(database))
    if others or sys.stderr.isatty():
        say(f"This home comes from {engine_access.home_source()}.")
    for other in others:
        say(f"There is another home of this user, with limits of its own: {other}")


def _show_server(as_json: bool) -> None:
    address = engine_access.server_address()
    if as_json:
        json.print_json({"home": None, "database": None, "source": "LOCALCONC_HOME", "server": address})
    else:
        click.echo(address)


@click.command(
    cls=options.Command,
    examples=(
        "completion bash >> ~/.bashrc",
        "completion zsh >> ~/.zshrc",
        "completion fish > ~/.config/fish/completions/localconc.fish",
    ),
)
@click.argument("shell", cls=options.Argument, metavar="SHELL", type=click.Choice(SHELLS), help="bash, zsh or fish.")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that lets a shell complete commands, options and the names of limits."""
    from click.shell_completion import get_completion_class

    program = context.find_root()
    script = get_completion_class(shell)
    assert script is not None
    source = script(program.command, {}, str(program.info_name), COMPLETION_VARIABLE).source()
    # Without -r, bash would take the backslashes away that keep a name with a space one word.
    print(source.replace("read type value", "read -r type value"))
