"""This machine as a keeper of limits: the engine of one home, with all operations on it."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from localconc._engine.operations import limits, reading
from localconc._engine.waiting import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from uuid import UUID

    from localconc._engine.core.calls import Call
    from localconc._engine.core.history import Acquisition, Statistics
    from localconc._engine.engine import Engine
    from localconc._engine.events import Event
    from localconc._engine.holding.holdings import Handle


class Machine:
    """The limits of one home, the counterpart of a server's keeper. See `localconc._keeper.Keeper`."""

    # Bound, not wrapped: every call goes through these, and through not one function more than it needs.

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.acquire: Callable[[Call, str, int], Handle] = partial(threads.acquire, engine)
        self.release: Callable[[Any], None] = partial(threads.release, engine)
        self.release_later: Callable[[Any], None] = engine.holdings.release_later
        self.handle_of: Callable[[int], Handle | None] = engine.holdings.handle_of
        self.numbers = partial(reading.numbers, engine)
        self.read_refs = partial(reading.read_refs, engine)

        self.create = partial(limits.create, engine)
        self.ensure = partial(limits.ensure, engine)
        self.ensure_all = partial(limits.ensure_all, engine)
        self.update = partial(limits.update, engine)
        self.reset = partial(limits.reset, engine)
        self.delete = partial(limits.delete, engine)
        self.pause = partial(limits.pause, engine)
        self.resume = partial(limits.resume, engine)

        self.read = partial(reading.read, engine)
        self.read_all = partial(reading.read_all, engine)
        self.holders = partial(reading.holders, engine)
        self.waiters = partial(reading.waiters, engine)

    def __repr__(self) -> str:
        return f"<This machine's limits in {self.engine.directory}>"

    def machine(self, what: str) -> Engine:
        """Return the engine."""
        return self.engine

    # ---- tasks, loaded with asyncio by programs that have some ---------------------------------------------------

    @cached_property
    def acquire_async(self) -> Callable[[Call, str, int], Coroutine[Any, Any, Handle]]:
        from localconc._engine.waiting import tasks

        return partial(tasks.acquire, self.engine)

    @cached_property
    def release_async(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        from localconc._engine.waiting import tasks

        return partial(tasks.release, self.engine)

    # ---- the past, loaded when a program reads it --------------------------------------------------------------

    def events(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]:
        from localconc._engine.operations import history

        return history.events(self.engine, name_or_id, since, newest)

    def history(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Acquisition]:
        from localconc._engine.operations import history

        return history.read(self.engine, name_or_id, since, newest)

    def statistics(self, name_or_id: str | UUID | None, since: float | None) -> list[Statistics]:
        from localconc._engine.operations import history

        return history.statistics(self.engine, name_or_id, since)
