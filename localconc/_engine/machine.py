"""This machine as a `Keeper` of limits: its engine, with the ways into it that the faces know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from localconc._engine import blocking
from localconc._engine.engine import Engine
from localconc.errors import NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from uuid import UUID

    from localconc._engine.calls import Call
    from localconc._engine.event import Event
    from localconc._engine.occupancy import Occupancy
    from localconc._engine.overview import Overview
    from localconc._engine.views import Holder, Limit, Waiter


def _administration() -> Any:
    from localconc._engine import administration

    return administration


class Machine(Engine):
    """The engine of one home, as `localconc._keeper.Keeper` wants it."""

    acquire = blocking.acquire
    release = blocking.give_back

    def acquire_async(self, call: Call, requester: str) -> Coroutine[Any, Any, Occupancy]:
        from localconc._engine import awaiting

        return awaiting.acquire(self, call, requester)

    def release_async(self, held: Occupancy) -> Coroutine[Any, Any, None]:
        from localconc._engine import awaiting

        return awaiting.give_back(self, held)

    def create(self, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit:
        created: Limit = _administration().create(
            self, name, limit, active=active, active_slots=active_slots, decay=decay
        )
        return created

    def ensure(self, name: str, limit: int, *, active: bool, decay: float) -> Limit:
        ensured: Limit = _administration().ensure(self, name, limit, active=active, decay=decay)
        return ensured

    def ensure_all(self, wanted: Iterable[tuple[str, int, bool, float]]) -> list[Limit]:
        ensured: list[Limit] = _administration().ensure_all(self, wanted)
        return ensured

    def update(self, name_or_id: str | UUID, **changes: Any) -> Limit:
        updated: Limit = _administration().update(self, name_or_id, **changes)
        return updated

    def delete(self, name_or_id: str | UUID) -> None:
        _administration().delete(self, name_or_id)

    def read(self, name_or_id: str | UUID) -> Limit:
        found: Limit = _administration().read(self, name_or_id)
        return found

    def read_all(self) -> list[Limit]:
        found: list[Limit] = _administration().read_all(self)
        return found

    def holders(self, name_or_id: str | UUID | None) -> list[Holder]:
        found: list[Holder] = _administration().holders(self, name_or_id)
        return found

    def waiters(self, name_or_id: str | UUID | None) -> list[Waiter]:
        found: list[Waiter] = _administration().waiters(self, name_or_id)
        return found

    def events(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]:
        found: list[Event] = _administration().events(self, name_or_id, since, newest)
        return found

    def pause(self, name_or_id: str | UUID, seconds: float) -> Limit:
        _not_yet()

    def resume(self, name_or_id: str | UUID) -> Limit:
        _not_yet()

    def history(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Any]:
        _not_yet()

    def statistics(self, name_or_id: str | UUID, since: float | None) -> Any:
        _not_yet()

    def snapshot(self, *, grants: bool = False) -> Overview:
        from localconc._engine.overview import notice_deaths, overview

        notice_deaths(self)
        return overview(self, grants=grants)


def _not_yet() -> NoReturn:
    raise NotSupportedError("This version of localconc can't do this yet.")
