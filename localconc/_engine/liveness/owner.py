"""A process's claim to be alive: a small file in the home, with a native lock that the process keeps until it dies.

The kernel releases the lock at the moment of death, whatever killed the process. So there is no lease, no heartbeat,
and no time-out that a stopped or slow process could miss.

Its bytes: the pid, at 16 `lock_notes`, 32 how many mailboxes, 40 `open_logs`, 64 the board of grants picked up.
"""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import lock_descriptor

from localconc._engine.core.clock import wall
from localconc._engine.homes.files import (
    close_same,
    create_file,
    identity_of,
    is_locked,
    is_same,
    read_at,
    read_in,
    write_at,
)
from localconc._engine.homes.home import OWNERS_NAME, file_mode
from localconc._engine.liveness.lock_notes import is_copy, is_handed_on, note_original
from localconc._engine.liveness.processes import command, has_exited, is_own_table, pid_namespace, started

if TYPE_CHECKING:
    from localconc._engine.core.records import OwnerRow

_SUFFIX: Final = ".lock"
_FRESH_SUFFIX: Final = ".new"

#: Names in the directory of owners: a key, and what the file is to that owner (`.lock`, `.new`, `.<mailbox>`).
_FILE_NAME: Final = re.compile(r"([0-9a-f]{24})\.(lock|new|[0-9]{1,5})", re.ASCII)

#: On Windows a lock is mandatory: filelock locks the first byte, which only the owner itself can then read. Elsewhere
#: the file may be one of localconc 0.1, whose pid begins there.
_PID_AT: Final = 1 if sys.platform == "win32" else 0
_MAILBOXES_AT: Final = 32
_BOARD_AT: Final = 64

#: How many successive grants the board can tell apart.
BOARD_WORDS: Final = 1024
_WORD_BYTES: Final = 8
_FILE_BYTES: Final = _BOARD_AT + BOARD_WORDS * _WORD_BYTES
MAX_MAILBOXES: Final = 99_999

#: A file that is still not locked this long after its creation belongs to a process that died in between.
_FRESH_SECONDS: Final = 60.0

#: How often a process tries to create its file, which another one may remove or lock in between.
_MAX_ATTEMPTS: Final = 10
_RETRY_SECONDS: Final = 0.002


class Owner:
    """This process's claim to be alive.

    Callers hold the database's lock; only those that acknowledge or retract may have none, and those that add or remove
    a mailbox have the pool's.

    Attributes:
        descriptor: the open, locked file. A command that inherits it keeps the lock.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.key = os.urandom(12).hex()
        self.pid = os.getpid()
        self.pid_namespace = pid_namespace()
        self.started = started(self.pid)
        self.command = command()
        self.path = directory / OWNERS_NAME / (self.key + _SUFFIX)
        self._path_text = str(self.path)
        self._free_mailboxes: list[int] = []
        self._mailboxes_ever = 0
        self.descriptor = self._create((b" %d\n" % self.pid).ljust(_FILE_BYTES, b"\0"))
        self._identity = identity_of(self.descriptor)

    def __repr__(self) -> str:
        return f"<Owner {self.key} of pid {self.pid}>"

    def _create(self, content: bytes) -> int:
        """Create the locked file and return its descriptor.

        Processes that look for dead owners try the lock, too, so the file gets its name only after it is locked. Where
        a process can't rename an open file, it tries the lock until the others have looked.
        """
        fresh = self.path.with_suffix(_FRESH_SUFFIX) if sys.platform != "win32" else self.path
        for _ in range(_MAX_ATTEMPTS):
            try:
                with suppress(FileNotFoundError):
                    os.unlink(fresh)
                descriptor = create_file(fresh, file_mode(self._directory))
            except PermissionError:
                if sys.platform != "win32":
                    raise
                time.sleep(_RETRY_SECONDS)  # others look at it at this moment: there, no open file can be removed
                continue
            try:
                if lock_descriptor(descriptor, blocking=False):
                    write_at(descriptor, content, 0)
                    note_original(descriptor)
                    if fresh != self.path:
                        os.replace(fresh, self.path)
                    return descriptor
            except FileNotFoundError:
                pass  # another process took it for the leftover of a dead one
            except BaseException:
                os.close(descriptor)
                with suppress(OSError):
                    os.unlink(fresh)
                raise
            os.close(descriptor)
            time.sleep(_RETRY_SECONDS)
        raise OSError(f"the new file {fresh} was removed or locked by another process, again and again")

    # ---- the claim ---------------------------------------------------------------------------------------------------

    def holds_its_descriptor(self) -> bool:
        """Return whether the descriptor still is the file that was opened: a daemoniser may have closed it."""
        return is_same(self.descriptor, self._identity)

    def is_in_place(self) -> bool:
        """Return whether the file at the path is the locked one; True if this process can't look there."""
        try:
            found = os.lstat(self._path_text)
            if (found.st_dev, found.st_ino) != self._identity:
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return is_same(self.descriptor, self._identity)

    def ensure_file(self) -> bool:
        """Create the file again if it was deleted, or replaced by a copy; return whether that was so.

        The new file has the old board, without which this process would seem not to have picked up its slots.
        """
        if self.is_in_place():
            return False
        content = (b" %d\n" % self.pid).ljust(_FILE_BYTES, b"\xff")  # any grant may have been picked up
        if self.holds_its_descriptor():
            content = read_at(self.descriptor, _FILE_BYTES, 0)
        former = self.descriptor, self._identity
        descriptor = self._create(content)
        self.descriptor, self._identity = descriptor, identity_of(descriptor)
        if is_same(*former):  # without a lock, another thread may have written there meanwhile
            newest = read_at(former[0], _FILE_BYTES, 0)
            for place in range(_BOARD_AT, _FILE_BYTES, _WORD_BYTES):
                word = newest[place : place + _WORD_BYTES]
                if word != content[place : place + _WORD_BYTES]:
                    write_at(descriptor, word, place)
        close_same(*former)  # at once: this tells those who watch it to look for the new file
        self._write_number_of_mailboxes()
        return True

    def close_in_child(self) -> None:
        """Close the descriptor in a forked child, which must not keep its parent's claim alive."""
        self._close()

    def retire(self) -> None:
        """Give up the claim, and remove its files."""
        for index in range(self._mailboxes_ever):
            self._unlink(f"{self.key}.{index}")
        if sys.platform == "win32":
            self._close()  # first: no open file can be removed there
        self._unlink(self.path.name)
        self._close()

    def _close(self) -> None:
        close_same(self.descriptor, self._identity)

    def _unlink(self, name: str) -> None:
        with suppress(OSError):  # another process clears up an orphaned file
            os.unlink(self._directory / OWNERS_NAME / name)

    # ---- mailboxes ---------------------------------------------------------------------------------------------------

    def add_mailbox(self) -> str:
        """Return the name of the file for one more mailbox. A process that cleans up after this one removes it.

        Raises:
            OSError: there are too many.
        """
        if self._free_mailboxes:
            index = self._free_mailboxes.pop()
        else:
            index = self._mailboxes_ever
            if index >= MAX_MAILBOXES:
                raise OSError(f"this process has {index} mailboxes already")
            self._mailboxes_ever += 1
            self._write_number_of_mailboxes()
        return f"{self.key}.{index}"

    def remove_mailbox(self, name: str) -> None:
        """Remove the file of a mailbox; a later mailbox may have its name."""
        self._unlink(name)
        self._free_mailboxes.append(int(name.rpartition(".")[2]))

    def _write_number_of_mailboxes(self) -> None:
        write_at(self.descriptor, self._mailboxes_ever.to_bytes(_WORD_BYTES, "little"), _MAILBOXES_AT)

    # ---- the board ---------------------------------------------------------------------------------------------------

    def acknowledge(self, serial: int) -> bool:
        """Write that this process has picked up the grant with this serial; return whether that succeeded.

        It is one system call, which does not check that the descriptor still is this file. So the caller has either
        just received a wakeup on another descriptor, or called `holds_its_descriptor`.
        """
        word = serial.to_bytes(_WORD_BYTES, "little")
        try:
            write_at(self.descriptor, word, _BOARD_AT + serial % BOARD_WORDS * _WORD_BYTES)
        except OSError:
            return False
        return True

    def retract(self, serial: int) -> None:
        """Take back the acknowledgement of a grant that another process had taken back before.

        The word becomes the next smaller serial, so that earlier grants that share the word stay acknowledged.
        """
        place = _BOARD_AT + serial % BOARD_WORDS * _WORD_BYTES
        with suppress(OSError):
            if int.from_bytes(read_at(self.descriptor, _WORD_BYTES, place), "little") == serial:
                write_at(self.descriptor, (serial - 1).to_bytes(_WORD_BYTES, "little"), place)


# ---- the claims of others --------------------------------------------------------------------------------------------


def is_alive(directory: Path, row: OwnerRow) -> bool:
    """Return whether the process of a row still runs; True if that is unknown."""
    is_other_table = not is_own_table(row.pid_namespace)
    if row.is_command and not is_other_table:
        return not has_ended(row)  # a command may close the lock that it inherited, or leave it to children
    path = path_of(directory, row.key)
    if locked := is_locked(path):  # it is as good as a life, but for a child that C code forked
        return is_other_table or not has_exited(row.pid) or is_handed_on(path)
    if locked is False and (is_other_table or not is_copy(path)):
        return False
    return is_other_table or not has_ended(row)  # the file is gone, or a copy: the process table decides


def is_lost(directory: Path, row: OwnerRow) -> bool:
    """Return whether nothing tells if a process lives: its file was removed, and its pid is of another namespace.

    If it lives, it makes its file again at its next use. If not, it would count as alive for ever.
    """
    return not is_own_table(row.pid_namespace) and not os.path.lexists(path_of(directory, row.key))


def has_ended(row: OwnerRow) -> bool:
    """Return whether the process of a row of this pid namespace has ended, even if its parent has not waited for it."""
    if has_exited(row.pid):
        return True
    started_now = started(row.pid)
    return "" not in (started_now, row.started) and started_now != row.started  # another process has the pid


def acknowledged(directory: Path, key: str, serial: int) -> bool:
    """Return whether an owner has picked up the grant with this serial; True if that is unknown.

    Serials grow, and grants that are `BOARD_WORDS` apart share a word on the board. A word above the serial says that
    the owner has picked up a later grant; then this one counts as picked up, too.
    """
    try:
        word = read_in(path_of(directory, key), _WORD_BYTES, _BOARD_AT + serial % BOARD_WORDS * _WORD_BYTES)
    except OSError:
        return True
    return len(word) < _WORD_BYTES or int.from_bytes(word, "little") >= serial


def path_of(directory: Path, key: str) -> Path:
    """Return the path of an owner's file; for a key that localconc did not make, a path without a file."""
    name = f"{key}{_SUFFIX}"
    return directory / OWNERS_NAME / (name if _FILE_NAME.fullmatch(name) else f"malformed{_SUFFIX}")


def remove_file(directory: Path, row: OwnerRow) -> None:
    """Remove the file of a dead owner, and its mailboxes."""
    path = path_of(directory, row.key)
    number = 0
    with suppress(OSError):
        number = int.from_bytes(read_in(path, _WORD_BYTES, _MAILBOXES_AT), "little")
    for index in range(min(number, MAX_MAILBOXES)):
        with suppress(OSError):
            os.unlink(path.with_suffix(f".{index}"))
    with suppress(OSError):
        os.unlink(path)


def living(directory: Path, except_key: str) -> dict[str, int]:
    """Return the pids of the processes that own a locked file in the home, by their keys."""
    pids = {}
    for key, paths in _files_by_key(directory).items():
        path = path_of(directory, key)
        if key != except_key and path in paths and is_locked(path):
            with suppress(OSError, ValueError):
                pids[key] = _pid_in(path)
    return pids


def orphaned_files(directory: Path, known_keys: set[str]) -> list[Path]:
    """Return the files of owners that neither live nor are in the store, because they died while they joined."""
    orphans = []
    for key, paths in _files_by_key(directory).items():
        path = path_of(directory, key)
        fresh = path.with_suffix(_FRESH_SUFFIX)
        if fresh in paths and _is_old(fresh):
            orphans.append(fresh)
        if key not in known_keys and not (path in paths and is_locked(path) is not False):
            orphans.extend(each for each in paths if each != fresh)
    return sorted(orphans)


def _files_by_key(directory: Path) -> dict[str, set[Path]]:
    files: dict[str, set[Path]] = {}
    try:
        names = os.listdir(directory / OWNERS_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return files
    for name in names:
        match = _FILE_NAME.fullmatch(name)
        if match:
            files.setdefault(match[1], set()).add(directory / OWNERS_NAME / name)
    return files


def _is_old(path: Path) -> bool:
    try:
        return abs(wall() - os.lstat(path).st_mtime) > _FRESH_SECONDS
    except OSError:
        return False


def _pid_in(path: Path) -> int:
    return int(read_in(path, _MAILBOXES_AT - _PID_AT, _PID_AT).partition(b"\n")[0])
