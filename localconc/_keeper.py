"""What keeps limits: this machine's engine, or a Prefect server. All that people import uses either through `Keeper`.

`registry.keeper()` chooses by `LOCALCONC_HOME`. For `prefect:` it calls `localconc._prefect.open_keeper()` at each use,
and imports that package only then. It does not remember the keeper: the server's address is a setting of Prefect's,
which may change while the variable stays. `open_keeper` remembers the keepers that it made, and sees to forks and to
the exit itself.

A face does this for a call: nothing for one without names or while limits are switched off; else `acquire` with the
checked call, the name of the thread or task, and what identifies it. It keeps the `Handle` for as long as the slots are
to be held, because a handle that is collected releases them, and passes it to `release` at the end. If an exception
interrupts `release`, the face calls `release_later`, which may be repeated, and lets the exception pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from uuid import UUID

    from localconc._engine.core.calls import Call
    from localconc._engine.core.history import Acquisition, Statistics
    from localconc._engine.core.records import Grant, LimitRef
    from localconc._engine.core.views import Holder, Limit, Waiter
    from localconc._engine.engine import Engine
    from localconc._engine.events import Event


class Handle(Protocol):
    """One acquisition with either keeper. If it is collected before its slots are released, that releases them."""

    @property
    def serial(self) -> int:
        """Identifies it among the acquisitions of this process with the same keeper."""

    @property
    def grant(self) -> Grant | None:
        """What was granted."""


class Keeper(Protocol):
    """Limits, and the decision which call has their slots now.

    Every method may raise `StoreError`. A method that this keeper can't carry out raises `NotSupportedError`.
    """

    def machine(self, what: str) -> Engine:
        """Return this machine's engine, because `what` works with nothing else."""

    # ---- slots -----------------------------------------------------------------------------------------------
    # Callables, because this machine binds the functions themselves: no method stands between a call and its engine.

    @property
    def acquire(self) -> Callable[[Call, str, int], Handle]:
        """Acquires what a call asks for; blocks the thread, which it is given by name and identity."""

    @property
    def release(self) -> Callable[[Any], None]:
        """Releases what `acquire` returned. Never fails for a keeper's troubles; the background goes on with it."""

    @property
    def acquire_async(self) -> Callable[[Call, str, int], Coroutine[Any, Any, Handle]]:
        """Acquires what a call asks for; suspends the task, which it is given by name and identity."""

    @property
    def release_async(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """Releases what was acquired; if it is cancelled, the slots are released all the same."""

    @property
    def release_later(self) -> Callable[[Any], None]:
        """Lets the background release what is still held."""

    @property
    def handle_of(self) -> Callable[[int], Handle | None]:
        """Finds the handle of an acquisition by its serial; None if its slots were released."""

    def numbers(self, serial: int) -> Mapping[str, tuple[int, ...] | None]:
        """Return the slot numbers of an acquisition by the name of the limit; None where slots drain."""

    def read_refs(self, refs: Iterable[LimitRef]) -> tuple[Limit, ...]:
        """Return the limits of a grant as they are now; deleted ones are left out."""

    # ---- administration: arguments are checked already -------------------------------------------------------

    def create(self, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit: ...

    def ensure(self, name: str, limit: int, *, active: bool, decay: float) -> Limit: ...

    def ensure_all(self, wanted: Iterable[tuple[str, int, bool, float]]) -> list[Limit]: ...

    def update(
        self,
        name_or_id: str | UUID,
        *,
        name: str | None = None,
        limit: int | None = None,
        active: bool | None = None,
        active_slots: int | None = None,
        decay: float | None = None,
    ) -> Limit: ...

    def reset(self, name_or_id: str | UUID) -> list[Holder]:
        """Forget every holder of a limit; return those that the keeper knows."""

    def delete(self, name_or_id: str | UUID) -> None: ...

    def pause(self, name_or_id: str | UUID, seconds: float) -> Limit: ...

    def resume(self, name_or_id: str | UUID) -> Limit: ...

    def read(self, name_or_id: str | UUID) -> Limit: ...

    def read_all(self) -> list[Limit]: ...

    def holders(self, name_or_id: str | UUID | None) -> list[Holder]: ...

    def waiters(self, name_or_id: str | UUID | None) -> list[Waiter]: ...

    def events(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]: ...

    def history(
        self, name_or_id: str | UUID | None, since: float | None, newest: int | None
    ) -> Sequence[Acquisition]: ...

    def statistics(self, name_or_id: str | UUID, since: float | None) -> Statistics: ...
