"""Commands that carry the definitions of limits from one home to another."""

from __future__ import annotations

import sys
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localconc.cli import engine_access, options
from localconc.cli.errors import CommandError
from localconc.cli.names import complete_file
from localconc.cli.output import json
from localconc.cli.output.text import counted
from localconc.cli.snapshot import take_snapshot

if TYPE_CHECKING:
    from localconc.cli.engine_access import Definition

_FIELDS = {"name", "limit", "active", "slot_decay_per_second"}


@click.command(cls=options.Command, examples=("export limits.json", "export | ssh other localconc import -"))
@click.argument(
    "file",
    cls=options.Argument,
    default="-",
    metavar="[FILE]",
    help="Where to; - or nothing for stdout.",
    shell_complete=complete_file,
)
def export(file: str) -> None:
    """Write the definitions of all limits as JSON. What is in use is left out."""
    definitions = [
        {
            "name": status.name,
            "limit": status.limit,
            "active": status.active,
            "slot_decay_per_second": status.slot_decay_per_second,
        }
        for status in take_snapshot().limits
        if status.configured
    ]
    json.print_json(definitions, None if file == "-" else Path(file))


@click.command(cls=options.Command, examples=("import limits.json",))
@click.argument(
    "file",
    cls=options.Argument,
    metavar="FILE",
    help="What export wrote; - for stdin.",
    shell_complete=complete_file,
)
@options.output
def import_(file: str, as_json: bool) -> None:
    """Make or change the limits that a file defines. All of them, or none; others stay as they are."""
    changed = engine_access.ensure_all(_definitions(*_read(file)))
    if as_json:
        json.print_json([json.limit_object(limit) for limit in changed])
    else:
        print(f"Imported {counted(len(changed), 'limit')}")


def _read(file: str) -> tuple[Any, str]:
    """Read a file; return its content, and what to call the file."""
    source = "What came from stdin" if file == "-" else repr(file)
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CommandError(f"{source} can't be read ({error.strerror}); nothing was changed") from None
    try:
        return loads(text), source
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{source} is not JSON ({error}); nothing was changed") from None


def _definitions(content: Any, source: str) -> list[Definition]:
    if not isinstance(content, list):
        raise CommandError(f"{source} must be a list of limits, as export writes it; nothing was changed")
    definitions = []
    for number, entry in enumerate(content, 1):
        try:
            definitions.append(_definition(entry))
        except (ValueError, TypeError) as error:
            raise CommandError(f"{source}, entry {number}: {error}; nothing was changed") from None
    names = [name for name, *_ in definitions]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise CommandError(f"{source} defines {twice[0]!r} more than once; nothing was changed")
    return definitions


def _definition(entry: Any) -> Definition:
    if not isinstance(entry, dict):
        raise TypeError(f"a limit must be an object, not {entry!r:.60}")
    unknown = sorted(set(entry) - _FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r} (those known: {', '.join(sorted(_FIELDS))})")
    missing = sorted({"name", "limit"} - set(entry))
    if missing:
        raise ValueError(f"{missing[0]!r} is missing")
    active = entry.get("active", True)
    if not isinstance(active, bool):
        raise TypeError(f"active must be true or false, not {active!r}")
    return engine_access.checked_definition(
        entry["name"], entry["limit"], active, entry.get("slot_decay_per_second", 0.0)
    )
