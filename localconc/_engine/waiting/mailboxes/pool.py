"""The pool of mailboxes of a process in one home, which keeps a few of them for the next waiters."""

from __future__ import annotations

import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from localconc._engine.core.clock import SystemClock
from localconc._engine.waiting.mailboxes.mailbox import LOOK, Mailbox
from localconc._engine.waiting.timing import MAX_POLLERS
from localconc._locks import new_lock

if sys.platform != "win32":
    from localconc._engine.waiting.mailboxes.mailbox import SocketMailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from localconc._engine.liveness.owner import Owner

now = SystemClock.now

#: How many mailboxes the pool keeps for the next waiters; it closes the others.
MAX_FREE: Final = 16

#: Waiting threads may use this share of the descriptors that a process may open, two for each mailbox.
MAX_DESCRIPTOR_SHARE: Final = 1 / 4


class MailboxPool:
    """The mailboxes of this process in one home: those in use, and some for the next waiters.

    Attributes:
        find: returns the mailbox of this process that has an address and is in use.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = new_lock()  # a signal handler may acquire while a mailbox is taken
        self._free: list[Mailbox] = []
        self._in_use: dict[str, Mailbox] = {}
        self.find: Callable[[str], Mailbox | None] = self._in_use.get
        self._owner: Owner | None = None
        self._polling: dict[str, Mailbox] = {}  # those in use whose threads poll
        self._crowd = 0  # how many there were when they last chose how often to poll
        self._local_ever = 0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<MailboxPool of {self._directory}: {len(self._in_use)} in use, {len(self._free)} free>"

    def __len__(self) -> int:
        """Return how many mailboxes are in use."""
        return len(self._in_use)

    def take(self, owner: Owner) -> Mailbox:
        """Return a mailbox that no other waiter uses. This never fails: at worst, only this process can send to it."""
        with self._lock:
            if owner is not self._owner:
                self._drop_free()
                self._owner = owner
            mailbox = self._free.pop() if self._free else None
            if mailbox is None or (now() >= mailbox.look_at and not mailbox.is_reusable):
                mailbox = self._reusable(mailbox) or self._with_socket(owner) or self._local(owner)
            self._in_use[mailbox.name] = mailbox
            return mailbox

    @property
    def pollers(self) -> int:
        """How many waiting threads poll."""
        return len(self._polling)

    def note_poller(self, mailbox: Mailbox) -> None:
        """Note that the thread of a mailbox polls until it puts the mailbox back: its wait has lasted for a while."""
        with self._lock:
            if mailbox.name in self._in_use:
                self._polling[mailbox.name] = mailbox
                self._crowd = max(self._crowd, len(self._polling))

    def _reusable(self, mailbox: Mailbox | None) -> Mailbox | None:
        """Return a free mailbox in place of one that is not reusable; late wakeups for it have another serial."""
        while mailbox is not None and not mailbox.is_reusable:
            self._discard(mailbox)
            mailbox = self._free.pop() if self._free else None
        return mailbox

    def _with_socket(self, owner: Owner) -> Mailbox | None:
        if sys.platform != "win32" and hasattr(select, "poll") and len(self._in_use) < _max_sockets():
            with suppress(OSError):  # this process has too many
                return SocketMailbox(self._directory, owner.add_mailbox())
        return None

    def _local(self, owner: Owner) -> Mailbox:
        self._local_ever += 1
        return Mailbox(f"{owner.key}:{self._local_ever}")

    def put(self, mailbox: Mailbox) -> None:
        """Take back a mailbox from its waiter."""
        mailbox.on_delivery = None
        with self._lock:
            if self._in_use.pop(mailbox.name, None) is None:
                return  # a fork has given it up in the meantime
            is_current = self._owner is not None and mailbox.name.startswith(self._owner.key)
            if is_current and mailbox.is_kept and len(self._free) < MAX_FREE and not self._is_closed:
                self._free.append(mailbox)
            else:
                self._discard(mailbox)
            has_polled = self._polling.pop(mailbox.name, None) is not None
            has_halved = has_polled and self._crowd > MAX_POLLERS and len(self._polling) <= self._crowd / 2
            if has_halved:
                self._crowd = len(self._polling)
        if has_halved:  # those who are left are to poll more often
            for each in list(self._polling.values()):
                each.wake()

    def wake_answered(self, queued: Collection[str]) -> None:
        """Let waiters look at the store that have an outcome; their own wakeups may be lost, or impossible.

        Args:
            queued: the addresses of the requests that have none yet.
        """
        for mailbox in list(self._in_use.values()):
            if mailbox.name not in queued and not mailbox.has(LOOK):
                mailbox.deliver(LOOK)

    def _discard(self, mailbox: Mailbox) -> None:
        mailbox.close()
        owner = self._owner
        if owner is not None and mailbox.name.startswith(f"{owner.key}."):
            owner.remove_mailbox(mailbox.name)

    def _drop_free(self) -> None:
        free, self._free = self._free, []
        for mailbox in free:
            self._discard(mailbox)

    def close(self) -> None:
        """Close the free mailboxes now, and the others when their waiters put them back."""
        with self._lock:
            self._is_closed = True
            self._drop_free()

    def close_in_child(self) -> None:
        """Close the descriptors of all mailboxes in a forked child; they go on to be the parent's."""
        self._lock = new_lock()
        for mailbox in [*self._free, *self._in_use.values()]:
            mailbox.close_in_child()
        self._in_use.clear()
        self._free, self._polling = [], {}


def _max_sockets() -> int:
    """Return how many mailboxes may have sockets: the program needs descriptors for other things."""
    if sys.platform == "win32":
        return 0
    try:
        import resource
    except (ImportError, OSError):  # a daemon may not see Python's own files any more, or have no descriptors left
        return MAX_FREE
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = limit if limit != resource.RLIM_INFINITY else 2**20
    return max(MAX_FREE, int(descriptors * MAX_DESCRIPTOR_SHARE) // 2)
