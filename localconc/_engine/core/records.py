"""The records that the packages pass to each other: rows of the store, grants, requesters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from localconc._engine.core.errors import malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class LimitRow(NamedTuple):
    """A limit with its state, as the ledger reads it."""

    id: int
    uuid: bytes
    name: str
    limit: int
    active: bool
    configured: bool
    declared: bool
    decay: float
    revision: int
    created: float
    updated: float
    held: int
    empty_at: float
    empty_at_wall: float | None
    average: float
    denied: float
    denied_at: float
    paused_until: float | None
    paused_until_wall: float | None
    first_ticket: int | None

    @classmethod
    def read(cls, values: Iterable[Any]) -> LimitRow:
        """Return a row as the ledger reads it.

        Raises:
            StoreError: it has values that localconc did not write.
        """
        row = cls._make(values)
        for value, types in zip(row, _TYPES_OF_A_LIMIT, strict=True):
            if not isinstance(value, types):
                raise malformed("A limit", value)
        if len(row.uuid) != _UUID_BYTES or row.average <= 0:
            raise malformed("A limit", row.name)
        return row


_NUMBER = (int, float)
_MOMENT = (int, float, type(None))
_UUID_BYTES = 16
#: What the columns of a `LimitRow` can hold.
_TYPES_OF_A_LIMIT: tuple[Any, ...] = (
    *(int, bytes, str, int, int, int, int, _NUMBER, int, _NUMBER, _NUMBER, int),
    *(_NUMBER, _MOMENT, _NUMBER, _NUMBER, _NUMBER, _MOMENT, _MOMENT, (int, type(None))),
)


class LimitRef(NamedTuple):
    """A limit as it was when its slots were granted, for holders and their events."""

    limit_id: int
    uuid: bytes
    name: str
    limit: int
    revision: int
    decay: float

    @classmethod
    def of(cls, row: LimitRow) -> LimitRef:
        return cls(row.id, row.uuid, row.name, row.limit, row.revision, row.decay)


class Grant(NamedTuple):
    """The slots that one acquisition of this process was granted. The process keeps this record until the release.

    `numbers` are its slot numbers on each limit; empty until the caller asks for them.
    """

    refs: tuple[LimitRef, ...]
    slots: int
    acquired_wall: float
    acquired_boot: float
    waited_seconds: float
    thread: str
    label: str
    context: int
    numbers: tuple[tuple[int, ...] | None, ...] = ()


#: Makes a grant from a tuple of all its fields. It is C, while a call of `Grant` is Python.
new_grant: Callable[
    [tuple[tuple[LimitRef, ...], int, float, float, float, str, str, int, tuple[tuple[int, ...] | None, ...]]], Grant
] = partial(tuple.__new__, Grant)


class Requester(NamedTuple):
    """The thread or task that asks: its owner, the owner's serial number for this acquisition, and its name.

    `context` identifies the thread or task in its process. It is 0 if any thread or task may release the slots.
    """

    owner_id: int
    serial: int
    thread: str
    label: str = ""
    context: int = 0


#: Makes a requester likewise.
new_requester: Callable[[tuple[int, int, str, str, int]], Requester] = partial(tuple.__new__, Requester)


def limits_in(limit_id: int, limit_ids: str | None) -> tuple[int, ...]:
    """Return the limits of a queued request: the only one of a simple request, or those of a JSON list.

    Raises:
        StoreError: localconc did not write this list.
    """
    if limit_ids is None:
        return (limit_id,)
    try:
        return tuple(int(each) for each in limit_ids[1:-1].split(",") if each)
    except (ValueError, TypeError) as error:
        raise malformed("A waiting request", limit_ids) from error


def limits_text(limit_ids: Iterable[int]) -> str:
    """Return limits as a JSON list, as the column `limit_ids` has them."""
    return f"[{','.join(map(str, limit_ids))}]"


class WaiterRow(NamedTuple):
    """A queued request, as the ledger reads it.

    `limit_ids` is None for a simple request, which asks for one limit without decay. `ticket` is 0 for a request that
    is yet to get one.
    """

    ticket: int
    owner_id: int
    serial: int
    state: int
    slots: int
    limit_id: int
    limit_ids: str | None
    request: str
    thread: str
    context: int
    has_end: int
    stops: str
    address: str
    secret: int
    waiting_since: float
    enqueued_boot: float
    granted_wall: float | None = None
    granted_boot: float | None = None
    answer: str | None = None

    @property
    def queued_on(self) -> list[int]:
        """The limits on which the request is queued."""
        if type(self.slots) is not int:
            raise malformed("A waiting request", self.slots)
        return list(limits_in(self.limit_id, self.limit_ids))

    @property
    def requester(self) -> Requester:
        return Requester(self.owner_id, self.serial, self.thread, self.request.partition(">")[2], self.context)


class OwnerRow(NamedTuple):
    """A process that holds or waits, as the store knows it."""

    id: int
    key: str
    pid: int
    pid_namespace: str
    started: str
    command: str
    is_command: int = 0


class LostLog(NamedTuple):
    """A log of the store that a living process has open, and that is not at its path.

    Attributes:
        key: the key of that process, as an owner.
        pid: its pid, in its own pid namespace.
        log: the inode of the log.
        is_visible: whether this process is in the same pid namespace.
    """

    key: str
    pid: int
    log: int
    is_visible: bool
