"""What commands print for programs: the same fields always, times in ISO 8601, nothing wrapped or coloured."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from localconc._engine import rules
from localconc._engine.description import active_slots
from localconc._engine.overview import next_slot_seconds
from localconc.cli.faults import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from localconc._engine.model import LimitRow
    from localconc._engine.overview import Claim, Overview, Standing
    from localconc._engine.views import Limit


def print_json(value: Any, path: Path | None = None) -> None:
    """Print a value as JSON on stdout, or write it to a file: whole, or not at all."""
    text = json.dumps(value, indent=2) + "\n"
    if path is None:
        sys.stdout.write(text)
        return
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a device
            return
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{str(path)!r} can't be written ({error.strerror})") from None


def limit_fields(limit: Limit) -> dict[str, Any]:
    """The fields of a `Limit`."""
    fields = asdict(limit)
    return {
        **fields,
        "id": str(limit.id),
        "created": time_text(limit.created.timestamp()),
        "updated": time_text(limit.updated.timestamp()),
    }


def limit_object(row: LimitRow, now: float) -> dict[str, Any]:
    """The same fields of a limit's row."""
    denied = rules.denied_slots(row.denied, row.denied_at, now, row.decay, row.average) if row.average else 0.0
    return {
        "id": str(UUID(bytes=row.uuid)),
        "name": row.name,
        "limit": row.limit,
        "active": bool(row.active),
        "active_slots": active_slots(row, now),
        "denied_slots": rules.displayed(denied),
        "slot_decay_per_second": row.decay,
        "avg_slot_occupancy_seconds": row.average,
        "created": time_text(row.created),
        "updated": time_text(row.updated),
    }


def listed_object(standing: Standing, everything: Overview) -> dict[str, Any]:
    """A limit as `ls` has it: with the number of those who wait, or null if a server does not tell it."""
    waiters = None if everything.untold else len(standing.waiters)
    return {**limit_object(standing.limit, everything.now), "waiters": waiters}


def inspected_object(standing: Standing, everything: Overview) -> dict[str, Any]:
    """A limit as `inspect` has it: with everybody on it."""
    shown = limit_object(standing.limit, everything.now)
    if everything.untold:
        return {**shown, "next_slot_at": None, "holders": None, "waiters": None}
    seconds = next_slot_seconds(standing.limit, everything.now)
    return {
        **shown,
        "next_slot_at": None if seconds is None else time_text(everything.wall + seconds),
        "holders": [{**_claim_object(claim), "acquired_at": time_text(claim.since)} for claim in standing.holders],
        "waiters": [
            {**_claim_object(claim), "waiting_since": time_text(claim.since), "position": position}
            for position, claim in enumerate(standing.waiters, 1)
        ],
    }


def _claim_object(claim: Claim) -> dict[str, Any]:
    return {"pid": claim.pid, "thread": claim.thread, "command": claim.command, "slots": claim.slots}


def time_text(seconds: float) -> str:
    """A moment on the wall clock, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
