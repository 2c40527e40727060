"""The definitions of all limits, in a file beside the database that survives its loss.

The file has JSON lines: each is a definition, or a name that was deleted, and the last line on a name counts. A process
appends to it before it commits the transaction, and syncs it if an operator declared the limit. It rewrites the file
when most lines are outdated. A process reads the file only to rebuild a database that is lost or damaged.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from localconc._engine.core.arguments import limit_name, nearest_decay
from localconc._engine.homes.files import create_file, open_or_create_file, read_at, write_at
from localconc._engine.homes.home import DEFINITIONS_LOG_NAME, file_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

#: The log is rewritten when it has more lines than this, and more than four for each limit.
REWRITE_LINES: Final = 1_000
_LINES_PER_LIMIT: Final = 4
_LINE_BYTES: Final = 100

#: Numbers of a definition are below this, as the database can hold no larger ones.
_MAX_NUMBER: Final = 2**63


def append(directory: Path, entries: Iterable[dict[str, Any]], *, is_durable: bool = True) -> None:
    """Add entries: each has `name`, and the fields of a definition or `deleted`.

    Args:
        is_durable: whether to sync them to the disk, so that they survive a power loss.

    Raises:
        StoreError: another user made the file, and this user may not write it; the message says what to do.
    """
    lines = "".join(_line(entry) for entry in entries).encode()
    descriptor = open_or_create_file(directory / DEFINITIONS_LOG_NAME, file_mode(directory))
    try:
        end = os.fstat(descriptor).st_size
        if end and read_at(descriptor, 1, end - 1) != b"\n":  # the previous writer died in the middle of its line
            lines = b"\n" + lines
        written = 0
        while written < len(lines):
            written += write_at(descriptor, lines[written:], end + written)
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if not end and is_durable:
        _sync_directory(directory)


def replay(directory: Path) -> dict[str, dict[str, Any]]:
    """Return the definitions by name, as of the last complete line; skip lines that are damaged."""
    definitions: dict[str, dict[str, Any]] = {}
    for entry in _entries(directory):
        if entry.get("deleted"):
            definitions.pop(entry["name"], None)
        else:
            definitions[entry["name"]] = {
                **entry,
                "slot_decay_per_second": nearest_decay(entry["slot_decay_per_second"]),
            }
    return definitions


def rewrite_if_long(directory: Path, count_definitions: Callable[[], int]) -> bool:
    """Keep one line for each definition if most lines are outdated; return whether that was so.

    The caller makes sure that no other process writes meanwhile.
    """
    path = directory / DEFINITIONS_LOG_NAME
    try:
        size = os.stat(path).st_size
    except OSError:
        return False
    if size < _LINE_BYTES * REWRITE_LINES or size < _LINE_BYTES * _LINES_PER_LIMIT * count_definitions():
        return False
    fresh = path.with_suffix(".new")
    with suppress(FileNotFoundError):
        os.unlink(fresh)
    with os.fdopen(create_file(fresh, file_mode(directory)), "wb") as file:
        file.writelines(_line(entry).encode() for entry in replay(directory).values())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.replace(fresh, path)
    except PermissionError:  # on Windows, while another process reads it: it stays long until the next time
        with suppress(OSError):
            os.unlink(fresh)
        return False
    _sync_directory(directory)
    return True


@cache
def _encoder() -> Callable[[object], str]:
    from json import JSONEncoder

    return JSONEncoder(separators=(",", ":")).encode  # `json.dumps` makes a new encoder each time


def _line(entry: dict[str, Any]) -> str:
    return _encoder()(entry) + "\n"


def _entries(directory: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = (directory / DEFINITIONS_LOG_NAME).read_bytes().splitlines()
    except OSError:
        return
    import json

    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and _is_sound(entry):
            yield entry


def _is_sound(entry: dict[str, Any]) -> bool:
    """Return whether an entry is valid: a disk that damaged the database may have damaged this file, too."""
    from uuid import UUID

    try:
        limit_name("name", entry["name"])
        if entry.get("deleted"):
            return True
        UUID(entry["id"])
        numbers = [float(entry[key]) for key in ("limit", "active", "created")]
        decay = float(entry["slot_decay_per_second"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return 0 <= decay < math.inf and all(0 <= number < _MAX_NUMBER for number in numbers)


def _sync_directory(directory: Path) -> None:
    """Let the name of a new file survive a power loss."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a filesystem may not offer it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
