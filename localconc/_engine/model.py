"""What the engine passes around: requests, rows, shares, holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

Mode = Literal["concurrency", "rate_limit"]

#: Slots that are held until they are given back, and slots that are left to drain.
CONCURRENCY: Final = "concurrency"
RATE_LIMIT: Final = "rate_limit"
_MODES: Final[dict[str, Mode]] = {CONCURRENCY: CONCURRENCY, RATE_LIMIT: RATE_LIMIT}


class Request(NamedTuple):
    """What a call asks for; complete, so that any process can answer it on behalf of a waiter."""

    names: tuple[str, ...]
    slots: int = 1
    mode: Mode = CONCURRENCY
    create_if_missing: bool = True
    limit: int | None = None
    slot_decay_per_second: float | None = None
    strict: bool = False

    def to_text(self) -> str:
        """The request as its row keeps it: the names come last, after slashes, which no name contains.

        Not JSON: that takes three milliseconds to load, in the first transaction of every process that waits.
        """
        numbers = (self.slots, int(self.create_if_missing), self.limit, self.slot_decay_per_second, int(self.strict))
        return "/".join([self.mode, *map(repr, numbers), *self.names])

    @classmethod
    def from_text(cls, text: str) -> Request:
        """The request as it was before `to_text`.

        Raises:
            StoreError: it is nothing that localconc wrote.
        """
        try:
            mode, slots, create, limit, decay, strict, *names = text.split("/")
            return cls(
                names=tuple(names),
                slots=int(slots),
                mode=_MODES[mode],
                create_if_missing=create == "1",
                limit=None if limit == "None" else int(limit),
                slot_decay_per_second=None if decay == "None" else float(decay),
                strict=strict == "1",
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(text) from error


def not_understood(what: str, value: object) -> StoreError:
    """Nothing that localconc wrote: a disk that fails, or another user of a shared home, can write anything there."""
    return StoreError(
        f"{what} in the database can't be understood ({str(value)[:80]!r}): is it damaged, or did somebody else write "
        "it? `localconc doctor` looks at the database."
    )


def _unreadable(value: object) -> StoreError:
    return not_understood("A waiting request", value)


class LimitRow(NamedTuple):
    """A limit with its state, as the ledger reads it."""

    id: int
    uuid: bytes
    name: str
    limit: int
    active: bool
    configured: bool
    decay: float
    revision: int
    created: float
    updated: float
    held: int
    empty_at: float
    average: float
    denied: float
    denied_at: float
    first_ticket: int | None


class Share(NamedTuple):
    """One limit's part in an acquisition: what its holder and its events need to know of it."""

    limit_id: int
    uuid: bytes
    name: str
    limit: int
    revision: int

    @classmethod
    def of(cls, row: LimitRow) -> Share:
        return cls(row.id, row.uuid, row.name, row.limit, row.revision)


def shares_to_json(shares: Iterable[Share]) -> str:
    """Shares as a waiter's answer keeps them."""
    import json

    return json.dumps([(limit_id, uuid.hex(), *rest) for limit_id, uuid, *rest in shares])


def shares_from_json(text: str) -> tuple[Share, ...]:
    """Shares as they were before `shares_to_json`."""
    import json

    try:
        return tuple(Share(limit_id, bytes.fromhex(uuid), *rest) for limit_id, uuid, *rest in json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(text) from error


class Acquisition(NamedTuple):
    """One limit's part of an acquisition, as the history tells it."""

    uuid: bytes
    name: str
    limit: int
    owner_id: int
    serial: int
    slots: int
    acquired_at: float
    released_at: float | None

    @property
    def key(self) -> tuple[int, int]:
        """What the parts of one call have in common."""
        return self.owner_id, self.serial

    @property
    def share(self) -> Share:
        return Share(0, self.uuid, self.name, self.limit, 0)


class Hold(NamedTuple):
    """What an acquisition of this process holds."""

    shares: tuple[Share, ...]
    slots: int
    acquired_at: float
    since: float
    thread: str


class Party(NamedTuple):
    """Who asks: the owner, its number for this acquisition, and the thread or task."""

    owner_id: int
    serial: int
    thread: str


class WaiterRow(NamedTuple):
    """A waiting request, as the ledger reads it."""

    ticket: int
    owner_id: int
    serial: int
    state: int
    slots: int
    request: str
    limit_ids: str
    thread: str
    address: str
    secret: int
    waiting_since: float
    admitted_at: float | None
    admitted_since: float | None
    answer: str | None

    @property
    def queued_on(self) -> list[int]:
        """The limits in whose queues it stands."""
        if type(self.slots) is not int:
            raise _unreadable(self.slots)
        try:
            return [int(limit_id) for limit_id in self.limit_ids.split()]
        except (ValueError, AttributeError) as error:
            raise _unreadable(self.limit_ids) from error

    @property
    def party(self) -> Party:
        return Party(self.owner_id, self.serial, self.thread)
