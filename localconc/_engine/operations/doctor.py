"""The examination of a home: what is wrong with it, with the remedy.

It changes nothing. So it does not open the store as a call does, because a call also repairs and cleans up.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from localconc._engine.core.errors import Damaged, explained, shown
from localconc._engine.homes import home
from localconc._engine.homes.filesystems import filesystem_type, is_network_filesystem
from localconc._engine.liveness import open_logs
from localconc._engine.liveness import owner as owners
from localconc._engine.operations import repairs
from localconc._engine.operations.log_readers import long_readers
from localconc._engine.queue import deadlocks
from localconc._engine.store import definitions_log
from localconc._engine.store.migration import FROM_VERSIONS
from localconc._engine.store.rows import integrity, owner_rows
from localconc._engine.store.rows.ledger import Ledger
from localconc._engine.store.rows.schema import LOG_BYTES, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localconc._engine.engine import Engine

#: A store that is larger than this and mostly empty is worth compacting.
ROOMY_BYTES = 64 * 2**20

#: A log is as long as this only while a reader keeps it from being brought into the database.
LONG_LOG_BYTES = 2 * LOG_BYTES

State = Literal["well", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: the subject, in a word or two.
        state: `well`, `note` (worth knowing, but nothing is wrong) or `wrong`.
        text: the result, in a sentence.
        remedy: what the operator can do about it; "" if there is nothing to do.
        repair: does it; None if that is not safe, or not necessary.
    """

    check: str
    state: State
    text: str
    remedy: str = ""
    repair: Callable[[Engine], None] | None = None


def examine(directory: Path) -> list[Finding]:
    """Check everything about a home."""
    if not os.path.lexists(directory):
        return list(_no_home_yet(directory))
    if not os.path.isdir(directory):
        text = f"The home {shown(directory)} is not a directory."
        return [Finding("path", "wrong", text, "Move that file away, or set LOCALCONC_HOME to a directory.")]
    if not os.access(directory, os.R_OK | os.X_OK):
        text = f"You do not have permission to use the home {shown(directory)}."
        return [Finding("permissions", "wrong", text, "Change its owner or mode, or set LOCALCONC_HOME elsewhere.")]
    path = directory / home.DATABASE_NAME
    findings = [Finding("path", "well", f"The database is {shown(path)}."), _filesystem(directory)]
    findings += _permissions(directory)
    findings += _place_of_owners(directory / home.OWNERS_NAME)
    findings += _lost_logs(directory, path)
    if path.is_symlink():
        findings.append(
            Finding(
                "database",
                "wrong",
                f"{shown(path)} is a symbolic link, which is not followed.",
                "Remove it, or set LOCALCONC_HOME to the directory it points to.",
            )
        )
    elif path.exists():
        findings += _database(directory, path)
    else:
        findings.append(_missing(directory, path))
    findings += _left_behind(directory)
    return findings


# ---- the home ----------------------------------------------------------------------------------------------------


def _no_home_yet(directory: Path) -> Iterator[Finding]:
    above = next(
        (path for path in directory.parents if os.path.lexists(path)), directory
    )  # itself: a drive that is gone
    if os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK):
        yield Finding("path", "well", f"There is no home {shown(directory)} yet; it is made at the first use.")
        yield _filesystem(above)
    else:
        text = f"There is no home {shown(directory)}, and none can be made in {shown(above)}."
        yield Finding("path", "wrong", text, "Set LOCALCONC_HOME to a directory that you can write.")


def _filesystem(directory: Path) -> Finding:
    kind = filesystem_type(directory)
    if is_network_filesystem(kind):
        text = f"The home is on a network filesystem ({kind}), where file locks can't be trusted."
        return Finding("filesystem", "wrong", text, "Set LOCALCONC_HOME to a directory on a local disk.")
    return Finding("filesystem", "well", f"The filesystem is local ({kind})." if kind else "The filesystem is local.")


def _place_of_owners(place: Path) -> Iterator[Finding]:
    if os.path.islink(place) or (os.path.lexists(place) and not os.path.isdir(place)):
        yield Finding("owners", "wrong", f"{shown(place)} is not a directory.", "Move it away; the next use makes one.")


def _permissions(directory: Path) -> Iterator[Finding]:
    if sys.platform == "win32":
        yield Finding("permissions", "well", "Permissions are the directory's own.")
        return
    locked = [path for path in _ours(directory) if not os.access(path, os.R_OK | os.W_OK)]
    if locked:
        text = f"Not readable and writable: {_listed(locked)}."
        yield Finding("permissions", "wrong", text, "Change their owner or mode, or set LOCALCONC_HOME elsewhere.")
    shared = home.is_group_shared(directory)
    open_wide = _open_wide(directory)
    if open_wide:
        text = f"Other users{', also outside of the group,' if shared else ''} can access: {_listed(list(open_wide))}."
        remedy = "Take their permissions away with chmod, or let --repair do so."
        repair = repairs.close_to_others(partial(_open_wide, directory))
        yield Finding("permissions", "wrong", text, remedy, repair)
    if not locked and not open_wide:
        whose = "you and the group" if shared else "you alone"
        yield Finding("permissions", "well", f"The home and its files are open to {whose}.")


def _open_wide(directory: Path) -> dict[Path, int]:
    """Return the parts of a home that others than its users can access, each with the mode that it should have."""
    group = 0 if home.is_group_shared(directory) else stat.S_IRWXG
    modes = {path: _mode(path) for path in _ours(directory)}
    wanted = {path: mode & ~(stat.S_IRWXO | group) for path, mode in modes.items()}
    if group == 0 and not modes[directory] & stat.S_IWOTH:
        del wanted[directory]  # others may list a shared directory, because its files are closed to them
    return {path: mode for path, mode in wanted.items() if mode != modes[path]}


def _ours(directory: Path) -> list[Path]:
    databases = [f"{home.DATABASE_NAME}{suffix}" for suffix in ("", "-wal", "-shm")]
    names = [*databases, home.MAINTENANCE_LOCK_NAME, home.DEFINITIONS_LOG_NAME, home.OWNERS_NAME]
    return [directory, *(path for path in map(directory.joinpath, names) if path.exists() and not path.is_symlink())]


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _missing(directory: Path, path: Path) -> Finding:
    users = sorted(owners.living(directory, "").values())
    if users:
        text = f"The database {shown(path)} is gone, and processes use it: {_listed(users)}."
        return Finding("database", "wrong", text, "One of them restores it at its next call; otherwise end them.")
    definitions = len(definitions_log.replay(directory))
    if definitions:
        text = f"The database {shown(path)} is gone; the definitions of {definitions} limit(s) are safe beside it."
        return Finding("database", "note", text, "It is built anew from them at the next use.")
    return Finding("database", "well", "There is no database yet; it is made at the first use.")


def _lost_logs(directory: Path, path: Path) -> Iterator[Finding]:
    users = [lost.pid for lost in open_logs.lost_logs(directory, "")]
    if users:
        text = f"The log of the database {shown(path)} was removed while processes use it: pid {_listed(users)}."
        remedy = "The next use brings back what they hold, and so does --repair."
        yield Finding("log", "wrong", text, remedy, repairs.reopen)


def _left_behind(directory: Path) -> Iterator[Finding]:
    aside = sorted(directory.glob(f"{home.DATABASE_NAME}.damaged-*"))
    if aside:
        text = f"Damaged databases were set aside: {_listed(aside)}."
        yield Finding("leftovers", "note", text, "Remove them once you do not need them any more.")


# ---- the database ------------------------------------------------------------------------------------------------


def _database(directory: Path, path: Path) -> Iterator[Finding]:
    if not path.is_file():
        yield _damaged(path, "it is no file")
        return
    try:
        uri = f"file:{quote(os.fsencode(path))}?mode=ro"
        with closing(sqlite3.Connection(uri, uri=True, timeout=5.0)) as connection:
            found = integrity.version(connection)
            if found < SCHEMA_VERSION and found not in FROM_VERSIONS:
                yield _damaged(path, "its tables are not localconc's")
                return
            yield _version(found)
            if found != SCHEMA_VERSION:
                return
            errors = integrity.integrity_errors(connection) or integrity.missing_parts(connection)
            if errors:
                yield _damaged(path, "; ".join(errors))
                return
            yield Finding("integrity", "well", "The database is sound.")
            if (mode := integrity.journal_mode(connection)) != "wal":
                text = f"The database has no log: its journal mode is {mode!r}, since another program has changed it."
                yield Finding("log", "note", text, "The next use gives it a log, and so does --repair.", repairs.reopen)
            connection.execute("BEGIN")
            yield _kept_beside(directory, Ledger(connection))
            yield from _owners(directory, Ledger(connection))
            yield from _rows(connection)
            yield from _deadlocks(Ledger(connection))
            unused = integrity.unused_bytes(connection)
        yield from _size(path, unused)
    except sqlite3.DatabaseError as error:
        if isinstance(explained(error, path), Damaged):
            yield _damaged(path, str(error))
        else:
            text = f"The database {shown(path)} can't be read ({error})."
            yield Finding("integrity", "wrong", text, "Look at its permissions, at those of its home, and at the disk.")


def _damaged(path: Path, reason: str) -> Finding:
    return Finding(
        "integrity",
        "wrong",
        f"The database {shown(path)} is damaged: {' '.join(reason.split())}.",
        "End what uses it; then --repair sets it aside and builds a new one with the same limits.",
        repairs.rebuild,
    )


def _version(found: int) -> Finding:
    if found > SCHEMA_VERSION:
        text = f"The database has version {found}, newer than this localconc understands ({SCHEMA_VERSION})."
        return Finding("version", "wrong", text, "Upgrade localconc, or set LOCALCONC_HOME to another directory.")
    if found < SCHEMA_VERSION:
        text = f"The database has version {found}, older than this localconc's ({SCHEMA_VERSION})."
        return Finding("version", "note", text, "It is brought up to date at the next use.")
    return Finding("version", "well", f"The database has version {found}, this localconc's own.")


def _owners(directory: Path, ledger: Ledger) -> Iterator[Finding]:
    rows = owner_rows.read_all(ledger.connection)
    lost = [row for row in rows if owners.is_lost(directory, row)]
    if lost:
        text = f"The files of processes in other containers were removed: pid {_listed([row.pid for row in lost])}."
        remedy = "Those that live make them again at their next use. If none lives, --repair releases their slots."
        yield Finding("owners", "wrong", text, remedy, repairs.reap_lost(lost))
    dead = [row for row in rows if not owners.is_alive(directory, row)]
    files = owners.orphaned_files(directory, {row.key for row in rows})
    if dead:
        slots = sum(len(ledger.held_by(row.id)) for row in dead)
        text = f"Dead processes still hold slots: pid {_listed([row.pid for row in dead])}, {slots} time(s)."
        remedy = "The next waiter releases them, and so does --repair."
        yield Finding("owners", "wrong", text, remedy, repairs.reap_dead(dead, files))
    elif files:
        text = f"{len(files)} file(s) of processes that ended while they were starting."
        yield Finding("owners", "note", text, "--repair removes them.", repairs.reap_dead([], files))
    elif not lost:
        alive = f"All {len(rows)} process(es) in the store are alive." if rows else "No process is in the store."
        yield Finding("owners", "well", alive)


def _kept_beside(directory: Path, ledger: Ledger) -> Finding:
    kept = {
        (name, entry["limit"], entry["active"], entry["slot_decay_per_second"])
        for name, entry in definitions_log.replay(directory).items()
    }
    limits = [row for row in ledger.all_limits() if row.configured]
    lacking = [row.name for row in limits if (row.name, row.limit, row.active, row.decay) not in kept]
    if not lacking:
        return Finding("definitions", "well", "Every limit is also written beside the database.")
    text = f"{len(lacking)} limit(s) are not written beside the database as they are, in {home.DEFINITIONS_LOG_NAME}."
    return Finding("definitions", "wrong", text, "--repair writes them there.", repairs.log_definitions(lacking))


def _rows(connection: sqlite3.Connection) -> Iterator[Finding]:
    remedy = "--repair counts anew from the rows of the holders."
    differing = integrity.totals_that_differ(connection)
    for _, name, recorded, held in differing:
        text = f"{name!r} counts {recorded} slots in use, but its holders have {held}."
        yield Finding("totals", "wrong", text, remedy, repairs.repair_rows)
    if not differing:
        yield Finding("totals", "well", "The slots in use of every limit equal those of its holders.")
    strangers = integrity.holders_without_owner(connection)
    if strangers:
        text = f"{len(strangers)} holder(s) belong to no process that the store knows."
        yield Finding("totals", "wrong", text, "--repair releases their slots.", repairs.repair_rows)
    places = integrity.places_without_waiter(connection)
    if places:
        text = f"{len(places)} orphaned queue entries block the requests behind them."
        yield Finding("queues", "wrong", text, "--repair removes them.", repairs.repair_rows)


def _deadlocks(ledger: Ledger) -> Iterator[Finding]:
    for circle in deadlocks.circles(ledger):
        text = f"Requests wait for each other forever: {circle.text}."
        yield Finding("deadlocks", "wrong", text, "End one of these processes, or let it release what it holds.")


def _size(path: Path, unused: int) -> Iterator[Finding]:
    log = path.with_name(path.name + "-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    size = path.stat().st_size + log_bytes
    if size > ROOMY_BYTES and unused + log_bytes > size / 2:
        text = f"The store takes {_mebibytes(size)}, most of it unused."
        yield Finding("size", "wrong", text, "--repair compacts it, once nothing uses it.", repairs.compact)
    else:
        yield Finding("size", "well", f"The store takes {_mebibytes(size)}.")
    readers = long_readers(path) if log_bytes > LONG_LOG_BYTES else []
    if readers:
        text = f"The log grows ({_mebibytes(log_bytes)}), since a process does not end reading: pid {_listed(readers)}."
        yield Finding("log", "wrong", text, "End that process, or its transaction; the log shrinks at the next use.")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _listed(things: list[Path] | list[int]) -> str:
    return ", ".join(shown(thing) for thing in things[:8]) + (", …" if len(things) > 8 else "")
