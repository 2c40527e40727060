"""The command that shows limits live, on a screen of its own."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from localconc.cli import json_output, options
from localconc.cli.completion import complete_name
from localconc.cli.faults import CommandError
from localconc.cli.lookup import look, standing
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localconc._engine.overview import Overview

REFRESH_SECONDS = 0.5


def watch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these.", autocompletion=complete_name, show_default=False),
    ] = None,
    output: options.Output = "text",
) -> None:
    """Show limits live. q or Ctrl-C leaves.

    Slots in use, holders and waiters with ages, grants a second, waits; refreshed twice a second. Without a terminal it
    prints how things stand, once.
    """
    as_json = options.wants_json(output)
    everything = chosen(look(grants=True), names or ())
    if as_json:
        shown = [
            {**json_output.inspected_object(found, everything), "grants_per_second": found.grants}
            for found in everything.standings
        ]
        json_output.print_json(shown)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(KeyboardInterrupt):
            _show_live(names or ())
    else:
        from localconc.cli import render, screen

        print_to = render.console()
        lines = screen.lines(everything, print_to.width, plain=render.is_plain(print_to))
        for line in lines[:1] and [lines[0][:1], *lines[1:]]:  # without what the keys do
            print(screen.as_text(line))


def chosen(everything: Overview, names: Sequence[str]) -> Overview:
    """Only the limits of these names; all of them where there are none."""
    if not names:
        return everything
    found = {standing(everything, name).limit.id for name in names}
    return everything._replace(standings=[one for one in everything.standings if one.limit.id in found])


def _show_live(names: Sequence[str]) -> None:
    """Paint the screen until somebody wants to leave; the terminal is as it was afterwards, however this ends."""
    from rich.live import Live

    from localconc.cli import render, screen
    from localconc.cli.keyboard import Keyboard

    console = render.console()
    plain = render.is_plain(console)
    picture = screen.Picture()
    with Keyboard() as keyboard, Live(picture, console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                everything = chosen(look(grants=True), names)
                lines = screen.lines(everything, console.width, plain=plain)
            except (LocalconcError, CommandError) as error:  # may pass: a busy store, a deleted limit
                lines = screen.trouble(error)
            if picture.show(lines, console.size):
                live.refresh()
            if keyboard.leaves_within(REFRESH_SECONDS, picture):
                return
