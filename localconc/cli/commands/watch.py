"""The command that shows limits live, on a screen of its own."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from localconc.cli import options
from localconc.cli.errors import CommandError
from localconc.cli.names import chosen
from localconc.cli.output import json
from localconc.cli.snapshot import take_snapshot
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Sequence

REFRESH_SECONDS = 0.5


@click.command(cls=options.Command, examples=("watch", "watch gpu api"))
@options.chosen_names
@options.output
def watch(names: tuple[str, ...], as_json: bool) -> None:
    """Show limits live. q or Ctrl-C leaves.

    Slots in use, holders and waiters with ages, grants a second, waits; refreshed twice a second. Without a terminal it
    prints a snapshot, once.
    """
    snapshot = chosen(take_snapshot(grants=True), names)
    if as_json:
        json.print_json(
            [
                {
                    **json.inspected_object(status, snapshot),
                    "grants_per_second": None if snapshot.untold else status.grants_per_second,
                }
                for status in snapshot.limits
            ]
        )
    elif sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(KeyboardInterrupt):
            _show_live(names)
    else:
        from localconc.cli.output import screen, tables

        console = tables.console()
        lines = screen.lines(snapshot, console.width, ascii_only=tables.is_ascii_only(console))
        for line in lines[:1] and [lines[0][:1], *lines[1:]]:  # without what the keys do
            print(screen.as_text(line))


def _show_live(names: Sequence[str]) -> None:
    """Paint the screen until the user leaves; restore the terminal, however this ends."""
    from rich.live import Live

    from localconc.cli.output import screen, tables
    from localconc.cli.output.keyboard import Keyboard

    console = tables.console()
    ascii_only = tables.is_ascii_only(console)
    picture = screen.Picture()
    with Keyboard() as keyboard, Live(picture, console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                snapshot = chosen(take_snapshot(grants=True), names)
                lines = screen.lines(snapshot, console.width, ascii_only=ascii_only)
            except (LocalconcError, CommandError) as error:  # may pass: a busy store, a deleted limit
                lines = screen.trouble(error)
            if picture.show(lines, console.size):
                live.refresh()
            if keyboard.leaves_within(REFRESH_SECONDS, picture):
                return
