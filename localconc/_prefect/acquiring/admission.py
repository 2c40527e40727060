"""One attempt to take slots, as the sending thread makes it.

The server passes over limits that do not exist and ones that are disabled. What localconc promises about them needs
their definitions. So an attempt reads them first, and remembers for a while which limits are enforced. It does not
remember a limit that is missing or disabled, because that may be enforced at the next moment.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from localconc._prefect.holding.leases import Hold, lease_seconds
from localconc._prefect.server.errors import Refused, refused
from localconc._prefect.shared import RATE_LIMIT
from localconc.errors import ConcurrencySlotAcquisitionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._prefect.asking.wakeups import Wakeups
    from localconc._prefect.holding.leases import Leases
    from localconc._prefect.server.connection import Connection, Granted
    from localconc._prefect.shared import Call, Limit, Request

#: How long a limit counts as enforced after the server said so. If it is disabled meanwhile, the server admits all the
#: same; only events and `Occupancy.limits` name it for so much longer.
KNOWN_SECONDS = 10.0
MAX_KNOWN = 10_000

#: When to ask again about a limit of 0 slots, of which the server gives no estimate.
PAUSED_SECONDS = 2.0

#: How often definitions may change between the questions of one attempt before it counts as refused.
MAX_CHANGES = 5


class Taken(NamedTuple):
    """The slots were granted; `unset` are names of limits that are missing, and so limit nothing."""

    hold: Hold
    unset: tuple[str, ...]


class Denied(NamedTuple):
    """The slots are not free; `retry_after` is in how many seconds the server expects them to be.

    `seen` is the number of the latest hint from before the server was asked.
    """

    names: tuple[str, ...]
    retry_after: float
    reason: str
    seen: int


class Admission:
    """Makes attempts. Only the sending thread calls `attempt`.

    Args:
        leases: where granted leases are kept.
        wakeups: the hints that this process has sent.
    """

    def __init__(self, leases: Leases, wakeups: Wakeups) -> None:
        self._leases = leases
        self._wakeups = wakeups
        self._known_until: dict[str, float] = {}

    def forget(self, names: Iterable[str]) -> None:
        """Read the definitions of these limits before the next attempt."""
        for name in names:
            self._known_until.pop(name, None)

    def attempt(self, call: Call, connection: Connection) -> Taken | Denied:
        """Try once to take what a call asks for.

        Raises:
            ConcurrencySlotAcquisitionError: it can never be admitted as things are.
            Unreachable, StoreError: the server gives no answer.
        """
        request, seen = call.request, self._wakeups.latest
        for _ in range(MAX_CHANGES):
            enforced, unset = self._enforced(request, connection)
            if not enforced:
                return Taken(Hold(None, (), request.slots, time.time()), unset)
            begun = time.monotonic()
            try:
                granted = self._take(call, enforced, connection)
            except Refused as refusal:
                denied = self._denied(request, enforced, refusal, connection, seen)
                if denied is None:
                    continue
                return denied
            hold = self._hold(call, granted, begun)
            if len(granted.limits) == len(enforced):
                return Taken(hold, unset)
            self._leases.release_later(hold)  # one was deleted or renamed since its definition was read
            self.forget(enforced)
        return Denied(request.names, PAUSED_SECONDS, "the definitions of the limits change all the time", seen)

    def _take(self, call: Call, enforced: tuple[str, ...], connection: Connection) -> Granted:
        if call.request.mode == RATE_LIMIT:
            return connection.take_to_drain(enforced, call.request.slots)
        holder = None if call.lease is None else call.lease.holder
        return connection.take(enforced, call.request.slots, lease_seconds(call), holder)

    def _hold(self, call: Call, granted: Granted, begun: float) -> Hold:
        hold = Hold(
            granted.lease_id,
            granted.limits,
            call.request.slots,
            time.time(),
            raises_when_lost=call.lease is not None and bool(call.lease.raise_on_renewal_failure),
        )
        if hold.lease_id is not None:
            self._leases.add(hold, lease_seconds(call), begun)
        return hold

    # ---- which limits a request has to respect ---------------------------------------------------------------

    def _enforced(self, request: Request, connection: Connection) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of the limits that are enforced, and of those that are missing and stay so.

        Raises:
            ConcurrencySlotAcquisitionError: under `strict`, if one is not enforced.
        """
        now = time.monotonic()
        if request.strict:
            self.forget(request.names)
        elif all(self._known_until.get(name, 0.0) > now for name in request.names):
            return request.names, ()
        found = {name: self._find_or_create(name, request, connection) for name in request.names}
        enforced = tuple(name for name, limit in found.items() if limit is not None and limit.active)
        if request.strict and len(enforced) < len(found):
            idle = ", ".join(repr(name) for name in found if name not in enforced)
            raise ConcurrencySlotAcquisitionError(
                f"strict=True, but these limits are missing or inactive: {idle}. Create or enable them, or pass limit=…"
            )
        if len(self._known_until) + len(enforced) > MAX_KNOWN:
            self._known_until.clear()
        self._known_until.update(dict.fromkeys(enforced, now + KNOWN_SECONDS))
        return enforced, tuple(name for name, limit in found.items() if limit is None)

    def _find_or_create(self, name: str, request: Request, connection: Connection) -> Limit | None:
        limit = connection.read(name)
        if limit is not None or request.limit is None or not request.create_if_missing:
            return limit
        decay = request.slot_decay_per_second or 0.0
        try:
            connection.create(name, request.limit, active=True, active_slots=0, decay=decay)
        except Refused as refusal:
            if refusal.status != 409:  # another process was faster
                raise refused(connection.url, refusal) from None
        return connection.read(name)

    # ---- why not ---------------------------------------------------------------------------------------------

    def _denied(
        self, request: Request, enforced: tuple[str, ...], refusal: Refused, connection: Connection, seen: int
    ) -> Denied | None:
        """Return why the server refused; None if its reason no longer holds.

        Raises:
            ConcurrencySlotAcquisitionError: the request can never be admitted as things are.
        """
        if refusal.status == 423:
            reason = f"too few free slots of {_listed(enforced)}"
            return Denied(
                enforced, PAUSED_SECONDS if refusal.retry_after is None else refusal.retry_after, reason, seen
            )
        if refusal.status != 422:
            raise refused(connection.url, refusal)
        self.forget(enforced)
        limits = [limit for name in enforced if (limit := connection.read(name)) is not None and limit.active]
        _refuse_what_never_fits(request, limits)
        paused = tuple(limit.name for limit in limits if limit.limit == 0)
        if paused:
            return Denied(enforced, PAUSED_SECONDS, f"{_listed(paused)} has limit 0", seen)
        return None


def _refuse_what_never_fits(request: Request, limits: list[Limit]) -> None:
    too_small = [f"{limit.name!r} has only {limit.limit}" for limit in limits if 0 < limit.limit < request.slots]
    if too_small:
        raise ConcurrencySlotAcquisitionError(
            f"occupy={request.slots} can never be satisfied: {', '.join(too_small)} slot(s)."
        )
    steady = [limit.name for limit in limits if limit.slot_decay_per_second == 0]
    if request.mode == RATE_LIMIT and steady:
        raise ConcurrencySlotAcquisitionError(
            f"rate_limit needs limits with slot decay; these have none: {_listed(steady)}. "
            "Set slot_decay_per_second on them, or use concurrency."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
