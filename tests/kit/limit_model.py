"""What is right, worked out without the engine: limits, holders and a queue in order of arrival.

The model judges what the engine did. It says which requests are refused, and of each admission whether it was in
turn and whether there was room; of each request that still waits, whether it waits for nothing. A limit without decay
is counted exactly. Of one with decay the model keeps two bounds: what is occupied if every release gave everything
back, and if none gave anything back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from tests.kit.forever import Hold, Wish, wait_forever

#: Rounding of the floating-point clock, in slots.
ROUNDING = 1e-4


@dataclass(eq=False)
class ModelLimit:
    name: str
    limit: int
    active: bool = True
    decay: float = 0.0
    configured: bool = True
    least: float = 0.0  # occupied at `at`, of a limit with decay
    most: float = 0.0
    at: float = 0.0
    paused_until: float = 0.0
    has_drained: bool = False

    def drain(self, now: float) -> None:
        self.least = max(0.0, self.least - self.decay * (now - self.at))
        self.most = max(0.0, self.most - self.decay * (now - self.at))
        self.at = now


@dataclass(eq=False)
class ModelRequest:
    """A call that waits, holds, or is over."""

    label: str
    names: tuple[str, ...]
    slots: int
    is_rate: bool = False
    limit: int | None = None
    thread: Hashable = None  # of a block that waits for as long as it takes
    waits_on: list[ModelLimit] = field(default_factory=list)
    holds: dict[ModelLimit, int] = field(default_factory=dict)
    named: dict[ModelLimit, str] = field(default_factory=dict)  # the held limits, as they were called at the grant
    numbers: dict[ModelLimit, tuple[int, ...]] = field(default_factory=dict)

    def numbers_of(self, limit: ModelLimit) -> tuple[int, ...]:
        return self.numbers.get(limit, ())


class Refusal(Exception):
    """The request can never be admitted as things are."""


class LimitModel:
    """All limits and requests of one home."""

    def __init__(self) -> None:
        self.limits: dict[str, ModelLimit] = {}
        self.waiting: list[ModelRequest] = []
        self.holding: list[ModelRequest] = []
        self.now = 0.0

    # ---- time ------------------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        self.now = now
        for limit in self._all_limits():
            limit.drain(now)

    def _all_limits(self) -> set[ModelLimit]:
        return {*self.limits.values(), *(limit for request in self.holding for limit in request.holds)}

    # ---- requests --------------------------------------------------------------------------------------------

    def resolve(self, request: ModelRequest) -> list[ModelLimit]:
        """Return the limits that count for a request, making those that it names and that are missing.

        Raises:
            Refusal: it can never be admitted as things are.
        """
        found = [self._find_or_make(name, request.limit) for name in request.names]
        enforced = [limit for limit in found if limit.active]
        if any(0 < limit.limit < request.slots for limit in enforced):
            raise Refusal
        if request.is_rate and any(limit.decay == 0 for limit in enforced):
            raise Refusal
        return enforced

    def _find_or_make(self, name: str, wanted: int | None) -> ModelLimit:
        limit = self.limits.get(name)
        if limit is None:
            limit = self.limits[name] = ModelLimit(name, 1, active=False, configured=False, at=self.now)
        if not limit.configured and wanted is not None:
            limit.limit, limit.active, limit.configured = wanted, True, True
        return limit

    def is_named_by_a_waiter(self, names: Iterable[str]) -> bool:
        return any(set(names) & set(request.names) for request in self.waiting)

    def arrive(self, request: ModelRequest) -> None:
        """A request joins the end of the queue.

        Raises:
            Refusal: it can never be admitted as things are.
        """
        before = dict(self.limits)
        try:
            request.waits_on = self.resolve(request)
        except Refusal:
            self.limits = before  # a call that fails makes no limits
            raise
        self.waiting.append(request)

    def admit_in_turn(self, admitted: Iterable[ModelRequest]) -> None:
        """Take note of whom the engine admitted; each must have been in turn, and must have had room."""
        left = list(admitted)
        while left:
            legal = [request for request in left if self._is_first(request) and self._fits(request)]
            assert legal, f"admitted out of turn, or without room: {left}; {self}"
            self._grant(legal[0])
            left.remove(legal[0])

    def _is_first(self, request: ModelRequest) -> bool:
        before = self.waiting[: self.waiting.index(request)]
        return not any(limit in other.waits_on for other in before for limit in request.waits_on)

    def _fits(self, request: ModelRequest) -> bool:
        return all(
            limit.paused_until <= self.now and self.least_occupied(limit) + request.slots <= limit.limit + ROUNDING
            for limit in request.waits_on
        )

    def _grant(self, request: ModelRequest) -> None:
        self.waiting.remove(request)
        for limit in request.waits_on:
            limit.least += request.slots if limit.decay else 0
            limit.most += request.slots if limit.decay else 0
            if not request.is_rate:
                request.holds[limit] = request.slots
                request.named[limit] = limit.name
        request.waits_on = []
        if request.holds:
            self.holding.append(request)

    def leave(self, request: ModelRequest) -> None:
        """A request gives back what it holds, or leaves the queue."""
        if request in self.waiting:
            self.waiting.remove(request)
        if request in self.holding:
            self.holding.remove(request)
        for limit, slots in request.holds.items():
            if limit.decay:
                limit.least = max(0.0, limit.least - slots)
        request.holds = {}

    def held(self, limit: ModelLimit) -> int:
        return sum(request.holds.get(limit, 0) for request in self.holding)

    def least_occupied(self, limit: ModelLimit) -> float:
        return limit.least if limit.decay else self.held(limit)

    # ---- deadlocks -------------------------------------------------------------------------------------------

    def waits_forever(self, request: ModelRequest) -> bool:
        """Return whether a waiting block can't be admitted, whatever others release."""
        wishes = [
            Wish(place, each.thread, each.slots, frozenset(map(id, each.waits_on)))
            for place, each in enumerate(self.waiting)
            if each.thread is not None
        ]
        holds = [
            Hold(each.thread, id(limit), slots)
            for each in self.holding
            if each.thread is not None
            for limit, slots in each.holds.items()
        ]
        sizes = {id(each): each.limit for each in self._all_limits() if each.decay == 0 and each.limit > 0}
        return self.waiting.index(request) in wait_forever(wishes, holds, sizes)

    # ---- slot numbers ----------------------------------------------------------------------------------------

    def number(self, request: ModelRequest, told: dict[str, tuple[int, ...] | None]) -> None:
        """Take note of what a holder was told: the numbers that it had, or the lowest that no present holder has."""
        for limit in request.holds:
            if limit in request.numbers:
                expected = request.numbers[limit]
            elif limit.decay:
                assert told[request.named[limit]] is None
                continue
            else:
                others = {
                    number for other in self.holding if limit in other.holds for number in other.numbers_of(limit)
                }
                expected = tuple(sorted(set(range(len(others) + request.slots)) - others)[: request.slots])
                if self.held(limit) <= limit.limit and not limit.has_drained:
                    assert max(expected) < limit.limit, f"{limit} was not lowered"
                request.numbers[limit] = expected
            assert told[request.named[limit]] == expected, f"{request} was told {told}, not {expected}"

    # ---- changes of limits -----------------------------------------------------------------------------------

    def delete(self, name: str) -> list[ModelRequest]:
        gone = self.limits.pop(name)
        self._forget_holders(gone)
        return self.reconsider()

    def rename(self, name: str, new_name: str) -> list[ModelRequest]:
        limit = self.limits[new_name] = self.limits.pop(name)
        limit.name, limit.configured = new_name, True
        return self.reconsider()

    def change(self, name: str, *, limit: int | None = None, active: bool | None = None) -> list[ModelRequest]:
        changed = self.limits[name]
        changed.limit = changed.limit if limit is None else limit
        changed.active = changed.active if active is None else active
        changed.configured = True
        return self.reconsider()

    def change_decay(self, name: str, decay: float, left: Callable[[ModelRequest], int]) -> list[ModelRequest]:
        """What is occupied stays; without decay, each holder keeps what has not drained yet (which `left` tells)."""
        changed = self.limits[name]
        if changed.decay == 0:
            changed.least = changed.most = self.held(changed)
        elif decay == 0:
            for request in [request for request in self.holding if changed in request.holds]:
                assert 0 <= left(request) <= request.holds[changed]
                request.holds[changed] = left(request)
            assert self.held(changed) <= changed.most + len(self.holding) + ROUNDING
        changed.decay, changed.configured = decay, True
        changed.has_drained = changed.has_drained or decay > 0
        return self.reconsider()

    def pause(self, name: str, seconds: float) -> None:
        limit = self.limits[name]
        limit.paused_until = max(limit.paused_until, self.now + seconds)

    def resume(self, name: str) -> None:
        self.limits[name].paused_until = 0.0

    def paused(self) -> set[str]:
        return {name for name, limit in self.limits.items() if limit.paused_until > self.now}

    def forget_holders(self, name: str) -> list[ModelRequest]:
        limit = self.limits[name]
        self._forget_holders(limit)
        limit.least = limit.most = 0.0
        limit.configured = True
        return self.reconsider()

    def _forget_holders(self, limit: ModelLimit) -> None:
        for request in list(self.holding):
            request.holds.pop(limit, None)
            if not request.holds:
                self.holding.remove(request)

    def reconsider(self) -> list[ModelRequest]:
        """Answer all who wait as if they had just called, in their places; return those that are refused."""
        refused = []
        before = None
        while before != (before := [(limit.name, limit.active) for limit in self.limits.values()]):
            for request in list(self.waiting):
                try:
                    request.waits_on = self.resolve(request)
                except Refusal:
                    self.waiting.remove(request)
                    refused.append(request)
        return refused

    # ---- what must be so -------------------------------------------------------------------------------------

    def check_shown(self, shown: dict[str, int]) -> None:
        """Compare what the engine says is occupied of each limit."""
        for name, limit in self.limits.items():
            if limit.configured:
                occupied = shown[name]
                if limit.decay:
                    assert limit.least - ROUNDING <= occupied <= limit.most + 1 + ROUNDING, (name, occupied, limit)
                else:
                    assert occupied == self.held(limit), (name, occupied, self.held(limit))

    def adopt_placeholders(self, names: Iterable[str]) -> None:
        """Believe the engine which names have a placeholder: one more or less changes nothing for anybody."""
        for name, limit in list(self.limits.items()):
            if not limit.configured and name not in names:
                del self.limits[name]
        for name in names:
            self.limits.setdefault(name, ModelLimit(name, 1, active=False, configured=False, at=self.now))

    def check_that_nobody_waits_for_nothing(self, shown: dict[str, int]) -> None:
        for request in self.waiting:
            has_room = all(
                limit.limit > 0 and limit.paused_until <= self.now and shown[limit.name] + request.slots <= limit.limit
                for limit in request.waits_on
            )
            assert not (has_room and self._is_first(request)), f"{request} waits for nothing; {self}"

    def __repr__(self) -> str:
        return f"limits {list(self.limits.values())}, waiting {self.waiting}, holding {self.holding}"
