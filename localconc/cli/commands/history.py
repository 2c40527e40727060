"""Commands that show the past: acquisitions, their figures, the timeline."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from localconc import limits
from localconc.cli import options
from localconc.cli.engine_access import statistics_of_all
from localconc.cli.errors import CommandError, WrongUsage
from localconc.cli.names import complete_file, complete_name, naming
from localconc.cli.output import json
from localconc.cli.output.text import duration_text, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from pendulum import DateTime

    from localconc._engine.core.history import Statistics
    from localconc.cli.output.timeline.model import Timeline

#: How many lines `history` prints, unless it is told.
DEFAULT_LINES = 20

#: Beyond a pipe there is no screen to fit.
PIPE_WIDTH = 120

#: A century. Systems differ in how far back their moments go.
MAX_SINCE_SECONDS = 100 * 365 * 86_400.0

_FORMATS = ("text", "json", "prometheus")


def _read_since(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    seconds = options.read_seconds(ctx, param, value)
    if seconds is not None and seconds > MAX_SINCE_SECONDS:
        raise WrongUsage(f"--since must be at most a century, but is {value!r}")
    return seconds


def _read_format(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value.lower() not in _FORMATS:
        raise WrongUsage(f"--output must be text, json or prometheus, not {value!r}")
    return value.lower()


_one_name = click.argument(
    "name",
    cls=options.Argument,
    metavar="[NAME]",
    required=False,
    help="Name of the limit; all of them without one.",
    shell_complete=complete_name,
)
_since = click.option(
    "--since",
    metavar="TIME",
    callback=_read_since,
    help="How far to look back: 45s, 10m, 1h30m, 2d. [default: as far as the history goes]",
)


@click.command(cls=options.Command, examples=("history gpu -n 5", "history -o json | jq 'max_by(.waited_seconds)'"))
@_one_name
@click.option(
    "newest",
    "--number",
    "-n",
    metavar="N",
    callback=options.whole(1),
    help=f"How many of the newest. [default: {DEFAULT_LINES}; with -o json, all]",
)
@_since
@options.output
def history(name: str | None, newest: int | None, since: float | None, as_json: bool) -> None:
    """List past acquisitions, the newest last: the process, when, how long it waited and held."""
    now = time.time()
    most = newest or (None if as_json else DEFAULT_LINES)
    with naming(name or ""):
        acquisitions = limits.read_history(name, since=_moment(now, since), newest=most)
    if as_json:
        from localconc.cli.output.history_table import acquisition_object

        json.print_json([acquisition_object(acquisition) for acquisition in acquisitions])
    elif acquisitions:
        from localconc.cli.output.history_table import print_history

        print_history(acquisitions, now)
    else:
        print(_nothing(name, since))


@click.command(
    cls=options.Command, examples=("stats --since 1h", "stats -o prometheus > /var/lib/node_exporter/localconc.prom")
)
@_one_name
@_since
@click.option(
    "form",
    "--output",
    "-o",
    metavar="FORMAT",
    callback=_read_format,
    default="text",
    help="text, json, or prometheus for a node exporter's textfile collector.",
)
def stats(name: str | None, since: float | None, form: str) -> None:
    """Sum up waits and holds: how long, how busy, how many refused."""
    found = _statistics(name, _moment(time.time(), since))
    if form == "json":
        from localconc.cli.output.statistics_table import statistics_object

        objects = [statistics_object(one) for one in found]
        json.print_json(objects[0] if name is not None else objects)
    elif form == "prometheus":
        from localconc.cli.output.prometheus import prometheus_text

        sys.stdout.write(prometheus_text(found))
    elif any(one.acquisitions or one.refusals for one in found):
        from localconc.cli.output.statistics_table import print_statistics

        print_statistics([one for one in found if one.acquisitions or one.refusals or name is not None])
    else:
        print(_nothing(name, since))


@click.command(cls=options.Command, examples=("timeline --since 10m", "timeline gpu db -o timeline.html"))
@click.argument(
    "names",
    cls=options.Argument,
    metavar="[NAME]...",
    nargs=-1,
    help="Names of the limits; all of them without one.",
    shell_complete=complete_name,
)
@_since
@click.option(
    "file",
    "--output",
    "-o",
    metavar="FILE",
    shell_complete=complete_file,
    help="Draw it into a file: .html a page, .svg a picture, .json for Perfetto and chrome://tracing.",
)
def timeline(names: tuple[str, ...], since: float | None, file: str | None) -> None:
    """Draw when each process waited and held slots, and which ones held others up.

    In a terminal, a line for each holder. In a file, a page, a picture or a trace.
    """
    path = None if file is None else Path(file)
    draw = None if path is None else _drawing(path)
    found = _timeline(names, since)
    if not found.bars:
        message = _nothing(", ".join(names) or None, since)
        if path is not None:
            raise CommandError(message)
        print(message)
    elif path is not None and draw is not None:
        write_file(path, draw(found))
        print(f"Wrote {path}")
    else:
        _print_timeline(found)


def _statistics(name: str | None, since: DateTime | None) -> list[Statistics]:
    if name is None:
        return statistics_of_all(since)
    with naming(name):
        return [limits.read_statistics(name, since=since)]


def _timeline(names: Sequence[str], since: float | None) -> Timeline:
    from localconc.cli.output.timeline.model import timeline_of

    chosen = []
    for name in dict.fromkeys(names):
        with naming(name):
            chosen.append(limits.read_limit(name))
    now = time.time()
    begin = _moment(now, since)
    keys: list[UUID | None] = [limit.id for limit in chosen] or [None]
    acquisitions = [acquisition for key in keys for acquisition in limits.read_history(key, since=begin)]
    return timeline_of(
        acquisitions,
        until=now,
        since=None if since is None else now - since,
        limits=chosen or limits.read_limits(),
        waiters=limits.read_waiters(),
        only={limit.name for limit in chosen} or None,
    )


def _drawing(path: Path) -> Callable[[Timeline], str]:
    """Choose how to draw by the ending of a file's name; what is not asked for is not imported."""
    ending = path.suffix.lower()
    if ending in (".html", ".htm"):
        from localconc.cli.output.timeline.page import timeline_page

        return timeline_page
    if ending == ".svg":
        from localconc.cli.output.timeline.svg import timeline_svg

        return timeline_svg
    if ending == ".json":
        from localconc.cli.output.timeline.trace import timeline_trace

        return timeline_trace
    raise WrongUsage(f"--output must be a file that ends in .html, .svg or .json, not {str(path)!r}")


def _print_timeline(found: Timeline) -> None:
    from localconc.cli.output.tables import console, is_ascii_only
    from localconc.cli.output.timeline.text import timeline_text

    screen = console()
    width = screen.width if sys.stdout.isatty() else shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    for line in timeline_text(found, width, ascii_only=is_ascii_only(screen)):
        screen.print(line, no_wrap=True, crop=False)


def _moment(now: float, since: float | None) -> DateTime | None:
    import pendulum

    return None if since is None else pendulum.from_timestamp(now, tz="UTC") - timedelta(seconds=since)


def _nothing(name: str | None, since: float | None) -> str:
    """Say that the history is empty, and what to do."""
    of = f" of {name!r}" if name else ""
    if since is not None:
        return f"Nothing{of} was acquired in the last {duration_text(since)}. Leave out --since to look further back."
    return f"Nothing{of} was acquired yet. Use a limit, such as: localconc run {name or 'NAME'} -- COMMAND"
