"""Commands that carry the definitions of limits to a file and back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from localconc._engine import arguments
from localconc.cli import json_output, options
from localconc.cli.faults import CommandError
from localconc.cli.lookup import look

_FIELDS = {"name", "limit", "active", "slot_decay_per_second"}


def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Where to; - or nothing for stdout.", show_default=False)
    ] = "-",
) -> None:
    """Write the definitions of all limits as JSON. What is in use is left out."""
    definitions = [
        {
            "name": found.limit.name,
            "limit": found.limit.limit,
            "active": bool(found.limit.active),
            "slot_decay_per_second": found.limit.decay,
        }
        for found in look().standings
        if found.limit.configured
    ]
    json_output.print_json(definitions, None if file == "-" else Path(file))


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What export wrote; - for stdin.", show_default=False)],
    output: options.Output = "text",
) -> None:
    """Make or change the limits that a file defines. All of them, or none; others stay as they are."""
    as_json = options.wants_json(output)
    from localconc._engine import homes

    definitions = _definitions(*_read(file))
    changed = homes.current().ensure_all(definitions)
    if as_json:
        json_output.print_json([json_output.limit_fields(limit) for limit in changed])
    else:
        print(f"Imported {len(changed)} limit{'' if len(changed) == 1 else 's'}")


def _read(file: str) -> tuple[Any, str]:
    """What a file holds, and what to call the file."""
    source = "What came from stdin" if file == "-" else repr(file)
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CommandError(f"{source} can't be read ({error.strerror}); nothing was changed") from None
    try:
        return json.loads(text), source
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{source} is not JSON ({error}); nothing was changed") from None


def _definitions(content: Any, source: str) -> list[tuple[str, int, bool, float]]:
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


def _definition(entry: Any) -> tuple[str, int, bool, float]:
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
    return (
        arguments.limit_name("name", entry["name"]),
        arguments.whole("limit", entry["limit"], 0),
        active,
        arguments.decay(entry.get("slot_decay_per_second", 0.0)),
    )
