"""This machine as a keeper of limits: the engine of one home, with what can be done with it."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from localconc._engine.operations import limits, reading
from localconc._engine.waiting import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from uuid import UUID

    from localconc._engine.core.calls import Call
    from localconc._engine.core.history import Acquisition, Statistics
    from localconc._engine.core.records import LimitRef
    from localconc._engine.core.views import Holder, Limit, Waiter
    from localconc._engine.engine import Engine
    from localconc._engine.events import Event
    from localconc._engine.holding.holdings import Handle


class Machine:
    """The limits of one home, the counterpart of a server's keeper. See `localconc._keeper.Keeper`.

    Args:
        engine: of the home.

    Attributes:
        acquire: acquires for a thread.
        release: releases for a thread.
        release_later: releases in the background.
        handle_of: finds the handle of an acquisition.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Bound, not wrapped: every call goes through these, and not one function more than it needs.
        self.acquire: Callable[[Call, str, int], Handle] = partial(threads.acquire, engine)
        self.release: Callable[[Any], None] = partial(threads.release, engine)
        self.release_later: Callable[[Any], None] = engine.holdings.release_later
        self.handle_of: Callable[[int], Handle | None] = engine.holdings.handle_of

    def __repr__(self) -> str:
        return f"<This machine's limits in {self.engine.directory}>"

    def machine(self, what: str) -> Engine:
        """Return the engine."""
        return self.engine

    # ---- slots -----------------------------------------------------------------------------------------------

    @cached_property
    def acquire_async(self) -> Callable[[Call, str, int], Coroutine[Any, Any, Handle]]:
        from localconc._engine.waiting import tasks  # with asyncio, which programs without tasks do not load

        return partial(tasks.acquire, self.engine)

    @cached_property
    def release_async(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        from localconc._engine.waiting import tasks

        return partial(tasks.release, self.engine)

    def numbers(self, serial: int) -> dict[str, tuple[int, ...] | None]:
        return reading.numbers(self.engine, serial)

    def read_refs(self, refs: Iterable[LimitRef]) -> tuple[Limit, ...]:
        return reading.read_refs(self.engine, refs)

    # ---- declaring -------------------------------------------------------------------------------------------

    def create(self, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit:
        return limits.create(self.engine, name, limit, active=active, active_slots=active_slots, decay=decay)

    def ensure(self, name: str, limit: int, *, active: bool, decay: float) -> Limit:
        return limits.ensure(self.engine, name, limit, active=active, decay=decay)

    def ensure_all(self, wanted: Iterable[tuple[str, int, bool, float]]) -> list[Limit]:
        return limits.ensure_all(self.engine, wanted)

    def update(
        self,
        name_or_id: str | UUID,
        *,
        name: str | None = None,
        limit: int | None = None,
        active: bool | None = None,
        active_slots: int | None = None,
        decay: float | None = None,
    ) -> Limit:
        return limits.update(
            self.engine, name_or_id, name=name, limit=limit, active=active, active_slots=active_slots, decay=decay
        )

    def reset(self, name_or_id: str | UUID) -> list[Holder]:
        return limits.reset(self.engine, name_or_id)

    def delete(self, name_or_id: str | UUID) -> None:
        limits.delete(self.engine, name_or_id)

    def pause(self, name_or_id: str | UUID, seconds: float) -> Limit:
        return limits.pause(self.engine, name_or_id, seconds)

    def resume(self, name_or_id: str | UUID) -> Limit:
        return limits.resume(self.engine, name_or_id)

    # ---- reading ---------------------------------------------------------------------------------------------

    def read(self, name_or_id: str | UUID) -> Limit:
        return reading.read(self.engine, name_or_id)

    def read_all(self) -> list[Limit]:
        return reading.read_all(self.engine)

    def holders(self, name_or_id: str | UUID | None) -> list[Holder]:
        return reading.holders(self.engine, name_or_id)

    def waiters(self, name_or_id: str | UUID | None) -> list[Waiter]:
        return reading.waiters(self.engine, name_or_id)

    def events(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]:
        from localconc._engine.operations import history  # loaded by those who look back, as in the next two

        return history.events(self.engine, name_or_id, since, newest)

    def history(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Acquisition]:
        from localconc._engine.operations import history

        return history.read(self.engine, name_or_id, since, newest)

    def statistics(self, name_or_id: str | UUID, since: float | None) -> Statistics:
        from localconc._engine.operations import history

        return history.statistics(self.engine, name_or_id, since)
