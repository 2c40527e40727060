"""Which processes live: each that holds or waits owns a small file and keeps a native lock on it until it dies.

The kernel lets go of the lock at the moment of death, whatever killed the process; so there is no lease, no
heartbeat, and no time-out that a stopped or slow process could miss. On Linux a `Watch` also sleeps on the pidfds
of the others and learns of a death in under a millisecond; the lock alone decides whether it is true.
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import lock_descriptor

from localconc._engine.home import OWNERS_NAME, create_file, file_mode

#: More processes than this are not watched one by one; waiters then look at the locks instead.
MOST_WATCHED = 256

_SUFFIX = ".lock"


class OwnerRow(NamedTuple):
    """One process, as the store knows it."""

    id: int
    key: str
    pid: int
    pid_namespace: str
    started: str
    command: str
    is_command: int = 0


class Owner:
    """This process's claim to be alive: a locked file in the home."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.key = os.urandom(12).hex()
        self.pid = os.getpid()
        self.pid_namespace = pid_namespace()
        self.started = started(self.pid)
        self.command = command()
        self.path = _path(directory, self.key)
        self.descriptor = self._create()

    def _create(self) -> int:
        descriptor = create_file(self.path, file_mode(self._directory))
        os.write(descriptor, b"%d\n" % self.pid)
        if not lock_descriptor(descriptor, blocking=False):  # nobody else knows the name yet
            raise OSError(f"the new file {self.path} is locked by somebody else")
        return descriptor

    def ensure_file(self) -> None:
        """Put the file back, locked, if somebody deleted it."""
        if not self.path.exists():
            with suppress(FileExistsError):
                old, self.descriptor = self.descriptor, self._create()
                os.close(old)

    def abandon(self) -> None:
        """Close the descriptor in a forked child: the child must not keep its parent's claim alive."""
        with suppress(OSError):
            os.close(self.descriptor)

    def retire(self) -> None:
        """Give up the claim and remove the file."""
        with suppress(OSError):  # an orphaned file is cleared up by others
            self.path.unlink(missing_ok=True)
        self.abandon()


def _path(directory: Path, key: str) -> Path:
    return directory / OWNERS_NAME / (key + _SUFFIX)


def is_alive(directory: Path, owner: OwnerRow) -> bool:
    """Whether the process behind a row still runs. Where in doubt, it does."""
    if owner.is_command and owner.pid_namespace == pid_namespace():
        return not has_ended(owner)  # a command may close the lock it inherited, or leave it to children
    locked = _is_locked(_path(directory, owner.key))
    if locked is not None:
        return locked
    # Its file was deleted under it: the process table is the next best witness, where it is the same one.
    return owner.pid_namespace != pid_namespace() or not has_ended(owner)


def has_ended(owner: OwnerRow) -> bool:
    """Whether the process of a row in this pid namespace is known to be gone, be it that nobody collected it yet."""
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(owner.pid)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        try:
            if select.select([descriptor], [], [], 0)[0]:
                return True
        finally:
            os.close(descriptor)
    elif not _exists(owner.pid):
        return True
    started_now = started(owner.pid)
    return "" not in (started_now, owner.started) and started_now != owner.started  # the pid is another's now


def remove_file(directory: Path, owner: OwnerRow) -> None:
    """Remove the file of a dead owner."""
    with suppress(OSError):
        _path(directory, owner.key).unlink(missing_ok=True)


def living_pids(directory: Path, except_key: str) -> list[int]:
    """The processes that own a locked file in the home, whether or not a database knows them."""
    pids = []
    for path in (directory / OWNERS_NAME).glob("*" + _SUFFIX):
        if path.stem != except_key and _is_locked(path):
            with suppress(OSError, ValueError):
                pids.append(int(path.read_text(encoding="ascii")))
    return sorted(pids)


def orphaned_files(directory: Path, known_keys: set[str]) -> list[Path]:
    """Files of owners that are neither alive nor in the store: left by processes that died while they registered."""
    return [
        path
        for path in (directory / OWNERS_NAME).glob("*" + _SUFFIX)
        if path.stem not in known_keys and _is_locked(path) is False
    ]


def _is_locked(path: Path) -> bool | None:
    """Whether some process holds the lock of an owner's file; None if the file is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    except OSError:
        return True  # it can't be looked at: in doubt, it lives
    try:
        return not lock_descriptor(descriptor, blocking=False)
    except OSError:
        return True
    finally:
        os.close(descriptor)


# ---- what identifies a process -------------------------------------------------------------------------------------


def pid_namespace() -> str:
    """Which numbering of processes this one lives in (containers have their own); empty where there is only one."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process started, in the kernel's own ticks: tells it from a later one of the same pid. Empty if gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "" if sys.platform == "linux" or not _exists(pid) else "?"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def command() -> str:
    """The command line of this process, for people to read."""
    try:
        words = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return b" ".join(words).decode(errors="replace")[:200]
    except OSError:
        return " ".join(sys.orig_argv)[:200]


# ---- learning of deaths ----------------------------------------------------------------------------------------------


class Watch:
    """The living owners of a store other than this process, as one descriptor that is readable once one has died."""

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(os, "pidfd_open") and hasattr(select, "epoll") else None
        self._pidfds: dict[int, tuple[int, OwnerRow]] = {}  # by pidfd
        self._unwatched: dict[int, OwnerRow] = {}
        self.newest_owner_id = 0

    @property
    def descriptor(self) -> int | None:
        """What to sleep on, besides the mailbox."""
        return self._epoll.fileno() if self._epoll is not None and self._pidfds else None

    @property
    def is_complete(self) -> bool:
        """Whether the death of any owner it was told of will make the descriptor readable."""
        return self._epoll is not None and not self._unwatched

    def add(self, owners: list[OwnerRow]) -> None:
        """Watch more owners."""
        watched = {owner_id for owner_id, _ in self._pidfds.values()}
        for owner in owners:
            if owner.id not in watched and not self._add(owner):
                self._unwatched[owner.id] = owner

    def _add(self, owner: OwnerRow) -> bool:
        if self._epoll is None or len(self._pidfds) >= MOST_WATCHED or owner.pid_namespace != pid_namespace():
            return False
        try:
            descriptor = os.pidfd_open(owner.pid)
        except ProcessLookupError:
            return False
        except OSError:
            return False  # out of descriptors, or not permitted
        self._pidfds[descriptor] = (owner.id, owner)
        self._epoll.register(descriptor, select.EPOLLIN)
        return True

    @property
    def has_news(self) -> bool:
        """Whether somebody who is watched has died."""
        return self._epoll is not None and bool(self._pidfds) and bool(self._epoll.poll(0))

    def suspects(self) -> list[OwnerRow]:
        """Owners whose process has ended, and those that can't be watched: look at their locks."""
        suspects = list(self._unwatched.values())
        if self._epoll is not None and self._pidfds:
            for descriptor, _ in self._epoll.poll(0):
                if descriptor in self._pidfds:
                    suspects.append(self._pidfds[descriptor][1])
        return suspects

    def remove(self, owner: OwnerRow, *, ended: bool) -> None:
        """Stop watching an owner that is gone, or (not `ended`) one that outlives its process: its lock counts."""
        for descriptor, (owner_id, _) in list(self._pidfds.items()):
            if owner_id == owner.id:
                assert self._epoll is not None
                self._epoll.unregister(descriptor)
                os.close(descriptor)
                del self._pidfds[descriptor]
        self._unwatched.pop(owner.id, None)
        if not ended:
            self._unwatched[owner.id] = owner

    def forget(self) -> None:
        """Watch nobody any longer, and know nobody."""
        for descriptor in self._pidfds:
            assert self._epoll is not None
            self._epoll.unregister(descriptor)
            os.close(descriptor)
        self._pidfds.clear()
        self._unwatched.clear()
        self.newest_owner_id = 0

    def close(self) -> None:
        """Close all descriptors; in a forked child this does not touch the parent's."""
        for descriptor in self._pidfds:
            os.close(descriptor)
        self._pidfds.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
