"""The definitions of all limits beside the database, in a form that survives its loss.

An append-only file of JSON lines: a definition, or a name that was deleted. The last line on a name counts. It is
written before the transaction that it belongs to commits, and synced as well if an operator declared the limit. It is
rewritten whole when most of it is history. Nothing reads it while the database is sound; a lost or damaged database is
rebuilt from it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from localconc._engine.core.files import create_file, open_or_create_file
from localconc._engine.core.home import DEFINITIONS_LOG_NAME, file_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

#: The log is rewritten when it has more lines than this, and than four for each limit.
REWRITE_LINES = 1_000
LINE_BYTES = 100


def append(directory: Path, entries: Iterable[dict[str, Any]], *, is_durable: bool) -> None:
    """Add entries: each has `name` and the definition's fields, or `deleted`.

    Args:
        is_durable: whether they have to survive a power loss, and are synced to the disk.
    """
    import json

    text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
    descriptor = open_or_create_file(directory / DEFINITIONS_LOG_NAME, file_mode(directory))
    with os.fdopen(descriptor, "ab") as file:
        if file.tell() > 0 and not _ends_with_newline(directory / DEFINITIONS_LOG_NAME):
            file.write(b"\n")  # the previous writer died in the middle of its line
        file.write(text.encode())
        file.flush()
        if is_durable:
            os.fsync(file.fileno())


def replay(directory: Path) -> dict[str, dict[str, Any]]:
    """Return the definitions by name, as of the last complete line; skip a line that can't be read."""
    definitions: dict[str, dict[str, Any]] = {}
    for entry in _entries(directory):
        if entry.get("deleted"):
            definitions.pop(entry["name"], None)
        else:
            definitions[entry["name"]] = entry
    return definitions


def rewrite_if_long(directory: Path, definitions: Callable[[], int]) -> bool:
    """Keep one line for each definition once most lines are history; call it while no other process can write."""
    path = directory / DEFINITIONS_LOG_NAME
    try:
        size = path.stat().st_size
        if size < LINE_BYTES * REWRITE_LINES or size < LINE_BYTES * 4 * definitions():
            return False
    except OSError:
        return False
    import json

    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(create_file(fresh, file_mode(directory)), "wb") as file:
        for entry in replay(directory).values():
            file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    return True


def _entries(directory: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = (directory / DEFINITIONS_LOG_NAME).read_bytes().splitlines()
    except OSError:
        return
    import json

    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and _is_sound(entry):
            yield entry


def _is_sound(entry: dict[str, Any]) -> bool:
    """Return whether an entry can be used: a file that outlives a damaged disk may be damaged itself."""
    if not isinstance(entry.get("name"), str):
        return False
    if entry.get("deleted"):
        return True
    from uuid import UUID

    try:
        UUID(entry["id"])
        numbers = [float(entry[key]) for key in ("limit", "active", "slot_decay_per_second", "created")]
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return all(0 <= number < 2**63 for number in numbers)


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
