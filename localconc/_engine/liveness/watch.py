"""The watch by which a waiter learns at once that a process in front of it has died.

The kernel tells (by inotify) when the last descriptor of an owner's file is closed: the process died, became another
program, or closed all its descriptors. The lock ends at the same time, whatever pid namespace or container the process
is in, and one descriptor is enough for all owners. A command may close the file that it inherited, so the watch uses a
pidfd for it.

The news is only a suspicion, and `owner.is_alive` decides whether it is true. The lock ends a moment after the news
comes, so the waiter looks at a suspect several times.
"""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core.clock import SystemClock
from localconc._engine.core.records import OwnerRow
from localconc._engine.homes.files import identity_of, is_same
from localconc._engine.liveness.owner import path_of
from localconc._engine.liveness.processes import is_own_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    if sys.platform == "linux":
        from localconc._engine.liveness.systems.inotify import Inotify

        Epoll = select.epoll
    else:
        from typing import Any, TypeAlias

        Inotify: TypeAlias = Any
        Epoll: TypeAlias = Any

#: How many owners of a home the watch has at most; a waiter looks at the locks of all others now and then.
MAX_WATCHED: Final = 512

#: After these pauses, a waiter looks again at a suspect whose lock is still held.
RECHECK_PAUSES_SECONDS: Final = (0.0003, 0.001, 0.003, 0.01, 0.03)

IS_SUPPORTED: Final = sys.platform == "linux" and hasattr(select, "epoll")

#: The number in inotify's news that stands for all files, because more happened than the kernel keeps.
OVERFLOW: Final = -1

#: Epolls whose numbers other files have taken over. They stay here, because their finalizers would close those files.
_lost: Final[list[object]] = []


class _Suspect(NamedTuple):
    """An owner that may be dead: it is new to the watch and may have died before, or there is news of it."""

    row: OwnerRow
    due_at: float
    pauses: tuple[float, ...] = ()
    is_told_of: bool = False


class Watch:
    """The watched owners of one home, as one descriptor that becomes readable when one of them may have died.

    Callers hold the database's lock. If the kernel offers no such news, all owners are unwatched.

    Args:
        directory: the home.
        now: the clock of `recheck_at`.
        is_supported: whether the kernel offers such news.
    """

    def __init__(
        self, directory: Path, now: Callable[[], float] = SystemClock.now, *, is_supported: bool = IS_SUPPORTED
    ) -> None:
        self._directory = directory
        self._now = now
        self._is_supported = is_supported
        self._rows: dict[int, OwnerRow] = {}  # all added owners, by their ids
        self._numbers: dict[int, int] = {}  # of each watched owner: inotify's number, or minus the pidfd
        self._owner_ids: dict[int, int] = {}  # the owner of each such number
        self._suspects: dict[int, _Suspect] = {}
        self._told_of: set[int] = set()
        self._inotify: Inotify | None = None
        self._epoll: Epoll | None = None
        self._epoll_identity = (0, 0)

    def __repr__(self) -> str:
        return f"<Watch on {len(self._numbers)} of {len(self._rows)} owners, {len(self._suspects)} suspects>"

    # ---- what a waiter sleeps on -------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int | None:
        """The descriptor that is readable when there is news; None if the watch has no owner."""
        return self._epoll.fileno() if self._epoll is not None and self._numbers else None

    @property
    def recheck_at(self) -> float | None:
        """When to call `take_suspects` even without news, on the clock of the watch; None if there are no suspects."""
        suspects = self._suspects
        return min([suspect.due_at for suspect in suspects.values()]) if suspects else None

    @property
    def rows(self) -> list[OwnerRow]:
        """The owners that were added, and not removed since."""
        return list(self._rows.values())

    @property
    def unwatched(self) -> list[OwnerRow]:
        """The owners whose deaths bring no news; a waiter looks at their locks now and then."""
        return [row for owner_id, row in self._rows.items() if owner_id not in self._numbers]

    @property
    def is_complete(self) -> bool:
        """Whether the death of every owner brings news."""
        return len(self._numbers) == len(self._rows)

    def is_watching(self, owner_id: int) -> bool:
        """Return whether the death of an owner makes the descriptor readable."""
        return owner_id in self._numbers

    def was_told_of(self, owner_id: int) -> bool:
        """Return whether news of an owner came while it was watched: if it is dead, it has died just now."""
        return owner_id in self._told_of

    def has_news(self) -> bool:
        """Return whether it is worth calling `take_suspects`."""
        if self._ready():
            return True
        return bool(self._suspects) and min(each.due_at for each in self._suspects.values()) <= self._now()

    # ---- which owners to watch ---------------------------------------------------------------------------------------

    def add(self, rows: Iterable[OwnerRow]) -> None:
        """Watch more owners, or the commands that have taken their places.

        Each owner is a suspect at first, because it may have died just before.
        """
        rows = list(rows)
        is_open = bool(rows) and self._open()  # only once: if the system refuses now, it refuses for the next row, too
        for row in rows:
            known = self._rows.get(row.id)
            if known == row and row.id in self._numbers:
                continue
            if known is not None:
                self.remove(known)
            self._rows[row.id] = row
            if is_open and self._start(row):
                self._suspects[row.id] = _Suspect(row, self._now())

    def remove(self, row: OwnerRow) -> None:
        """Stop watching an owner, which is gone."""
        self._stop(row.id)
        self._rows.pop(row.id, None)
        self._suspects.pop(row.id, None)
        self._told_of.discard(row.id)

    def _start(self, row: OwnerRow) -> bool:
        """Watch one owner; return False if that is not possible. A dead owner counts as watched."""
        if len(self._numbers) >= MAX_WATCHED or not self._open():
            return False
        try:
            if row.is_command and is_own_table(row.pid_namespace):
                number = -self._watch_process(row.pid)
            else:
                number = self._watch_file(path_of(self._directory, row.key))
        except (FileNotFoundError, ProcessLookupError):
            return True
        except (OSError, AttributeError):  # too many, not permitted, or no pidfds here
            return False
        self._numbers[row.id] = number
        self._owner_ids[number] = row.id
        return True

    def _watch_file(self, path: Path) -> int:
        assert self._inotify is not None
        number: int = self._inotify.add(path)
        return number

    def _watch_process(self, pid: int) -> int:
        if sys.platform != "linux":
            raise OSError("only Linux has descriptors of processes")
        assert self._epoll is not None
        descriptor = os.pidfd_open(pid)
        try:
            self._epoll.register(descriptor, select.EPOLLIN)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _stop(self, owner_id: int) -> None:
        number = self._numbers.pop(owner_id, None)
        if number is None:
            return
        self._owner_ids.pop(number, None)
        if number >= 0:
            assert self._inotify is not None
            self._inotify.remove(number)
        else:
            assert self._epoll is not None
            self._epoll.unregister(-number)
            os.close(-number)

    # ---- news --------------------------------------------------------------------------------------------------------

    def take_suspects(self) -> list[OwnerRow]:
        """Return the owners that may be dead; the caller looks at them, and calls `remove` for dead ones.

        Later calls return the others a few times more. Then this watches them anew, because an owner may have created
        its file again.
        """
        for descriptor in self._ready():
            if self._inotify is not None and descriptor == self._inotify.descriptor:
                for number, has_ended in self._inotify.read():
                    self._suspect(number, has_ended=has_ended)
            else:
                self._suspect(-descriptor, has_ended=True)
        now = self._now()
        due = [suspect for suspect in self._suspects.values() if suspect.due_at <= now]
        for suspect in due:
            row, _, pauses, is_told_of = suspect
            if pauses:
                self._suspects[row.id] = _Suspect(row, now + pauses[0], pauses[1:], is_told_of)
                continue
            del self._suspects[row.id]
            if is_told_of:  # before the caller looks, so that the watch notices what happens in between
                self._stop(row.id)
                self._start(row)
        return [suspect.row for suspect in due]

    def _suspect(self, number: int, *, has_ended: bool) -> None:
        """Note news of a watched file or process; `has_ended` says whether this ended the watch on it."""
        if number == OVERFLOW:
            for each in [number for number in self._owner_ids if number >= 0]:
                self._suspect(each, has_ended=False)
        owner_id = self._owner_ids.get(number)
        if owner_id is None:
            return
        self._suspects[owner_id] = _Suspect(self._rows[owner_id], self._now(), RECHECK_PAUSES_SECONDS, True)
        self._told_of.add(owner_id)
        if has_ended:
            self._stop(owner_id)

    def _ready(self) -> list[int]:
        if self._epoll is None:
            return []
        try:
            if is_same(self._epoll.fileno(), self._epoll_identity):
                return [descriptor for descriptor, _ in self._epoll.poll(0)]
        except OSError:
            pass
        rows = list(self._rows.values())  # other code has closed the descriptors
        self.forget()
        self.add(rows)
        return []

    # ---- descriptors -------------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Open the descriptors if they are closed; return whether they are open."""
        if self._epoll is not None:
            return True
        if sys.platform == "linux" and self._is_supported:
            try:
                # It loads ctypes, which most processes never need.
                from localconc._engine.liveness.systems.inotify import Inotify

                self._inotify = Inotify()
                self._epoll = select.epoll()
                self._epoll_identity = identity_of(self._epoll.fileno())
                self._epoll.register(self._inotify.descriptor, select.EPOLLIN)
            except (OSError, AttributeError, ImportError):  # too many, none in this libc, or the process is in a jail
                self._close()
        return self._epoll is not None

    def _close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        if self._epoll is not None:
            if is_same(self._epoll.fileno(), self._epoll_identity):
                for number in self._owner_ids:
                    if number < 0:
                        os.close(-number)
                self._epoll.close()
            else:
                _lost.append(self._epoll)
        self._inotify = self._epoll = None

    def forget(self) -> None:
        """Stop watching, and forget all owners; in a forked child, this leaves the parent's watches as they are."""
        self._close()
        for known in (self._rows, self._numbers, self._owner_ids, self._suspects, self._told_of):
            known.clear()
