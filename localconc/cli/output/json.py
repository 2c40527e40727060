"""What commands print for programs: always the same fields, times in ISO 8601, no wrapping, no colours."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localconc.cli.output.text import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from localconc.cli.snapshot import Entry, LimitStatus, Snapshot
    from localconc.limits import Limit

_LIMIT_FIELDS = (
    "id",
    "name",
    "limit",
    "active",
    "active_slots",
    "denied_slots",
    "slot_decay_per_second",
    "avg_slot_occupancy_seconds",
    "created",
    "updated",
    "paused_until",
)
_MOMENTS = ("created", "updated", "paused_until")


def print_json(value: Any, path: Path | None = None) -> None:
    """Print a value as JSON on stdout, or write it to a file: whole, or not at all."""
    text = json.dumps(value, indent=2) + "\n"
    if path is None:
        sys.stdout.write(text)
    else:
        write_file(path, text)


def limit_object(limit: Limit | LimitStatus) -> dict[str, Any]:
    """Give the fields of a `Limit`."""
    fields: dict[str, Any] = {field: getattr(limit, field, None) for field in _LIMIT_FIELDS}
    for field in _MOMENTS:
        fields[field] = None if fields[field] is None else time_text(fields[field])
    return {**fields, "id": str(limit.id)}


def listed_object(status: LimitStatus, snapshot: Snapshot) -> dict[str, Any]:
    """Give a limit as `ls` has it, with the number of its waiters; null if a server does not tell it."""
    return {**limit_object(status), "waiters": None if snapshot.untold else len(status.waiters)}


def inspected_object(status: LimitStatus, snapshot: Snapshot) -> dict[str, Any]:
    """Give a limit as `inspect` has it, with all its holders and waiters; null if a server does not tell them."""
    if snapshot.untold:
        return {**limit_object(status), "next_slot_at": None, "holders": None, "waiters": None}
    seconds = status.next_slot_seconds
    return {
        **limit_object(status),
        "next_slot_at": None if seconds is None else time_text(snapshot.wall + seconds),
        "holders": [
            {**_entry_object(entry), "numbers": list(entry.numbers), "acquired_at": time_text(entry.since)}
            for entry in status.holders
        ],
        "waiters": [
            {**_entry_object(entry), "waiting_since": time_text(entry.since), "position": position}
            for position, entry in enumerate(status.waiters, 1)
        ],
    }


def _entry_object(entry: Entry) -> dict[str, Any]:
    return {
        "pid": entry.pid,
        "thread": entry.thread,
        "command": entry.command,
        "label": entry.label,
        "slots": entry.slots,
    }


def time_text(moment: float | datetime) -> str:
    """Write a moment on the wall clock, in UTC."""
    seconds = moment.timestamp() if isinstance(moment, datetime) else moment
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
