"""Bringing back a log that was removed while processes have it open.

The removed file lives on for as long as one of them has it open, and Linux lets others of the same user read it there.
It is copied back to its path before SQLite begins a new one: then nothing that was committed is lost. Where it can't be
read, no process may go on without it: what the processes that have it open hold would be granted again.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from localconc._engine.core.errors import Busy, shown
from localconc._engine.homes.files import create_file
from localconc._engine.homes.home import file_mode
from localconc.errors import StoreError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Protocol

    from localconc._engine.core.records import LostLog

    class OtherProcesses(Protocol):
        """The other processes that use a home."""

        def living_others(self) -> list[int]: ...
        def lost_logs(self) -> list[LostLog]: ...
        def forget_logs(self, logs: list[LostLog]) -> None: ...
        def close_log(self) -> None: ...
        def is_claim_in_place(self) -> bool: ...


#: The bytes of the log's index that writers and checkpoints lock (SQLite's «WAL-index format»).
_WRITE_LOCK: Final = 120
_LOCKS: Final = 2

#: Longer than a process goes on before it looks whether its log is still the one at the path.
_NOTICED_WITHIN_SECONDS: Final = 0.02


def may_be_lost(path: Path) -> bool:
    """Return whether a log has nothing in it, or is not there: another one may have been removed."""
    try:
        return os.stat(f"{path}-wal").st_size == 0
    except OSError:
        return True


def bring_back(path: Path, others: OtherProcesses) -> None:
    """Copy a removed log back to its path; only under the maintenance lock, and before the database is opened.

    Raises:
        Busy: a process is writing to the removed log.
        StoreError: it can't be read.
    """
    lost = others.lost_logs()
    if not lost or not may_be_lost(path):
        return
    opened = {log: _opened_by(log, lost) for log in {each.log for each in lost}}
    unread = [each.pid for each in lost if opened[each.log] is None and _may_have_it(each)]
    if unread:
        raise StoreError(
            f"The log of the database {shown(path)} was removed while other processes use it (pid "
            f"{', '.join(map(str, unread))}), and can't be read there: each of them notes what it holds at its next "
            "call; otherwise end them and call again."
        )
    links = [link for link in opened.values() if link is not None and os.stat(link).st_size > 0]
    if links:
        _copy_back(path, max(links, key=lambda link: os.stat(link).st_mtime_ns))
    others.forget_logs(lost)


def _copy_back(path: Path, link: str) -> None:
    """Copy the log while no process can write to it, and wait until the processes that have it open notice."""
    index = _index_beside(link)
    fresh = path.with_name(f"{path.name}-wal.new")
    with _kept_from_writing(index):
        fresh.unlink(missing_ok=True)
        with open(link, "rb") as removed, open(create_file(fresh, file_mode(path.parent)), "wb") as copy:
            while part := removed.read(1 << 20):
                copy.write(part)
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)  # it is of the removed log, or of an empty one
        os.replace(fresh, f"{path}-wal")
        time.sleep(_NOTICED_WITHIN_SECONDS)


@contextmanager
def _kept_from_writing(index: str | None) -> Iterator[None]:
    if sys.platform != "win32" and index is not None:
        descriptor = os.open(index, os.O_RDWR)
        try:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKS, _WRITE_LOCK)
            except OSError:
                raise Busy from None
            yield
        finally:
            os.close(descriptor)
    else:
        yield


# ---- what processes have open ----------------------------------------------------------------------------------------


def _opened_by(log: int, lost: list[LostLog]) -> str | None:
    """Return the path by which a removed log can be read, through any process that has it open."""
    noted = [str(each.pid) for each in lost if each.log == log and each.is_visible]
    with suppress(OSError):
        for pid in [*noted, *filter(str.isdigit, os.listdir("/proc"))]:
            for link in _links(pid):
                with suppress(OSError):
                    if os.stat(link).st_ino == log and _target(link).endswith("-wal"):
                        return link
    return None


def _may_have_it(lost: LostLog) -> bool:
    """Return whether a process may have the log open unseen: it is in another pid namespace, or hides its files."""
    return not lost.is_visible or not os.access(f"/proc/{lost.pid}/fd", os.R_OK | os.X_OK)


def _index_beside(link: str) -> str | None:
    """Return the path by which the index of a removed log can be opened."""
    wanted = _target(link).removesuffix("-wal") + "-shm"
    pid = link.split("/")[2]
    return next((each for each in _links(pid) if _target(each) == wanted), None)


def _links(pid: str) -> Iterable[str]:
    try:
        return [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def _target(link: str) -> str:
    with suppress(OSError):
        return os.readlink(link).removesuffix(" (deleted)")
    return ""
