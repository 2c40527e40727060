"""What this process holds on the server: leases, which are renewed while somebody holds them, and released after.

A lease ends by itself when its process has died. So a holder that lives must renew it in time, and one that can't, or
whose server has forgotten it, has lost its slots without knowing: that is logged, once, and the body goes on.
"""

from __future__ import annotations

import logging
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from localconc._prefect.errors import Refused, Unreachable
from localconc._prefect.sender import Question
from localconc._prefect.shared import Grant
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._prefect.connection import Connection
    from localconc._prefect.notices import Acquisition
    from localconc._prefect.sender import Sender
    from localconc._prefect.shared import Call, LimitRef

logger = logging.getLogger("localconc")

#: The shortest lease that the server gives: how long the slots of a killed process stay taken, and up to 15 s more.
LEASE_SECONDS = 60.0
MAX_LEASE_SECONDS = 86_400.0

#: A lease is renewed when a third of it has passed, so two renewals may fail before it ends.
RENEW_SHARE = 1 / 3
RENEW_AGAIN_SECONDS = 2.0

#: Pauses between attempts to release: at limit 0 the server refuses until the limit is raised.
RELEASE_AGAIN_SECONDS = 0.5
MAX_RELEASE_PAUSE_SECONDS = 5.0

_TROUBLES = (Unreachable, Refused, StoreError)

#: How the server says that it has no such lease: 410, or 404 as that of Prefect 3.4.10.
_UNKNOWN_LEASE = frozenset([404, 410])


def lease_seconds(call: Call) -> float:
    """Return how long the lease of a call lasts, unless it is renewed.

    Raises:
        ValueError: no server gives a lease of this length.
    """
    seconds = None if call.lease is None else call.lease.duration
    if seconds is None:
        return LEASE_SECONDS
    if not LEASE_SECONDS <= seconds <= MAX_LEASE_SECONDS:
        raise ValueError(
            f"lease_duration must be from {LEASE_SECONDS:g} to {MAX_LEASE_SECONDS:g} seconds on a Prefect server, but "
            f"is {seconds!r}"
        )
    return float(seconds)


class Hold:
    """Slots that one call holds: its handle. They are released when nobody refers to it any more.

    Attributes:
        grant: what its caller is shown; None before the call has its answer.
    """

    __slots__ = ("__weakref__", "acquired_at", "grant", "id", "lease_id", "limits", "raises_when_lost", "slots")

    def __init__(
        self,
        lease_id: UUID | None,
        limits: tuple[LimitRef, ...],
        slots: int,
        acquired_at: float,
        raises_when_lost: bool = False,
    ) -> None:
        self.id = lease_id or uuid4()
        self.lease_id = lease_id
        self.limits = limits
        self.slots = slots
        self.acquired_at = acquired_at
        self.raises_when_lost = raises_when_lost
        self.grant: Grant | None = None

    def __str__(self) -> str:
        return _text(self.slots, self.limits)

    @property
    def serial(self) -> int:
        return self.id.int

    def admit(self, waited_seconds: float, thread: str, label: str, context: int) -> None:
        """Note how the call went that waited for these slots."""
        now = time.monotonic()
        self.grant = Grant(self.limits, self.slots, self.acquired_at, now, waited_seconds, thread, label, context)


class _Lease:
    """A lease on the server, as this process knows it."""

    __slots__ = (
        "anchor",
        "expires_at",
        "id",
        "is_lost",
        "is_to_be_told",
        "limits",
        "raises_when_lost",
        "seconds",
        "slots",
    )

    def __init__(self, hold: Hold, lease_id: UUID, seconds: float, expires_at: float) -> None:
        self.id = lease_id
        self.limits = hold.limits
        self.slots = hold.slots
        self.seconds = seconds
        self.expires_at = expires_at
        self.is_lost = self.is_to_be_told = False
        self.raises_when_lost = hold.raises_when_lost
        self.anchor: weakref.ref[Any] | None = None

    def __str__(self) -> str:
        return _text(self.slots, self.limits)


class Leases:
    """All leases of this process.

    Args:
        sender: asks the server; renewals and releases run in its thread.
        on_release: called there with the names whose slots came free.
        on_late_release: called there with a lease whose acquisition was told of, and that no caller released.
    """

    def __init__(
        self, sender: Sender, on_release: Callable[[list[str]], None], on_late_release: Callable[[Acquisition], None]
    ) -> None:
        self._sender = sender
        self._on_release = on_release
        self._on_late_release = on_late_release
        self._leases: dict[UUID, _Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, hold: Hold, lease_seconds: float, begun: float) -> None:
        """Keep the lease of a new hold alive. Runs in the sending thread; `begun` is from before the question."""
        assert hold.lease_id is not None
        lease = _Lease(hold, hold.lease_id, lease_seconds, begun + lease_seconds)
        self._leases[lease.id] = lease
        # The callback may run in any thread, in the middle of anything: it takes no lock.
        lease.anchor = weakref.ref(hold, lambda _: self._release_lease_later(lease))
        self._sender.at(begun + lease_seconds * RENEW_SHARE, partial(self._renew, lease))

    def hold_of(self, serial: int) -> Hold | None:
        """Return the hold with this serial; None if it was released."""
        lease = self._leases.get(UUID(int=serial))
        hold = None if lease is None or lease.anchor is None else lease.anchor()
        return hold if isinstance(hold, Hold) else None

    def tell_of_release(self, hold: Hold) -> None:
        """Note that subscribers know of the acquisition, so that they are to know of its end, whoever releases."""
        lease = self._lease_of(hold)
        if lease is not None:
            lease.is_to_be_told = True

    def is_held(self, hold: Hold) -> bool:
        """Whether nobody has released it yet."""
        return self._lease_of(hold) is not None

    def is_lost(self, hold: Hold) -> bool:
        """Whether the server has given the slots to others."""
        lease = self._lease_of(hold)
        return lease is not None and lease.is_lost

    # ---- releasing -------------------------------------------------------------------------------------------

    def releasing(self, hold: Hold) -> Callable[[Connection], bool] | None:
        """What to ask the server to release a hold; None if there is nothing to release (any more).

        The answer tells whether the slots are free; if not, the background goes on with it. The caller tells of it.
        """
        lease = self._lease_of(hold)
        if lease is None:
            return None
        lease.is_to_be_told = False
        return partial(self._release, lease)

    def release_later(self, hold: Hold) -> None:
        """Release in the background, if that has not been done. May be called at any moment, and repeated."""
        lease = self._lease_of(hold)
        if lease is not None:
            self._release_lease_later(lease)

    def release_all(self) -> None:
        """Release all in the background."""
        for lease in self._leases.copy().values():
            self._release_lease_later(lease)

    def forget(self) -> None:
        """Know of no lease any more: they are another process's."""
        self._leases.clear()

    def _lease_of(self, hold: Hold) -> _Lease | None:
        return None if hold.lease_id is None else self._leases.get(hold.lease_id)

    def _release_lease_later(self, lease: _Lease) -> None:
        if lease.id in self._leases:
            self._sender.submit(Question(partial(self._release_late, lease), _nobody_waits))

    def _release_late(self, lease: _Lease, connection: Connection) -> None:
        is_to_be_told = lease.id in self._leases and lease.is_to_be_told
        self._release(lease, connection)
        if is_to_be_told:
            self._on_late_release(lease)

    def _release(self, lease: _Lease, connection: Connection) -> bool:
        # A lease leaves the dictionary here and not where the question is made: a thread that is interrupted in between
        # still finds it there when it tries again.
        if self._leases.pop(lease.id, None) is None:
            return True
        return self._try_to_release(lease, RELEASE_AGAIN_SECONDS, connection)

    def _try_to_release(self, lease: _Lease, pause_seconds: float, connection: Connection) -> bool:
        try:
            connection.release(lease.id)
        except _TROUBLES as trouble:
            self._release_again(lease, pause_seconds, trouble)
            return False
        self._on_release([limit.name for limit in lease.limits])
        return True

    def _release_again(self, lease: _Lease, pause_seconds: float, trouble: Exception) -> None:
        now = time.monotonic()
        if now >= lease.expires_at:  # the server releases it by itself
            return
        if pause_seconds == RELEASE_AGAIN_SECONDS and not isinstance(trouble, Refused):
            logger.warning("Could not release %s (%s); retrying in the background.", lease, trouble)
        longer = min(2 * pause_seconds, MAX_RELEASE_PAUSE_SECONDS)
        self._sender.at(now + pause_seconds, partial(self._try_to_release, lease, longer))

    # ---- renewing --------------------------------------------------------------------------------------------

    def _renew(self, lease: _Lease, connection: Connection) -> None:
        if lease.id not in self._leases:
            return
        begun = time.monotonic()
        try:
            connection.renew(lease.id, lease.seconds)
        except _TROUBLES as trouble:
            if isinstance(trouble, Refused) and trouble.status in _UNKNOWN_LEASE:
                self._lose(lease, "the server does not know its lease any more")
            elif begun >= lease.expires_at:
                self._lose(lease, f"its lease of {lease.seconds:.0f} s could not be renewed in time ({trouble})")
            else:
                self._sender.at(begun + RENEW_AGAIN_SECONDS, partial(self._renew, lease))
        else:
            lease.expires_at = begun + lease.seconds
            self._sender.at(begun + lease.seconds * RENEW_SHARE, partial(self._renew, lease))

    def _lose(self, lease: _Lease, reason: str) -> None:
        lease.is_lost = True
        logger.log(
            logging.ERROR if lease.raises_when_lost else logging.WARNING,
            "Lost %s: %s. The body goes on, and others may get these slots. If they stay taken, `localconc reset` "
            "frees them.",
            lease,
            reason,
        )


def _text(slots: int, limits: tuple[LimitRef, ...]) -> str:
    return f"{slots} slot(s) of {', '.join(repr(limit.name) for limit in limits)}"


def _nobody_waits() -> None:
    pass
