"""The keeper of limits, which is this machine's engine or a Prefect server. Public modules use it through `Keeper`.

`registry.keeper()` chooses by `LOCALCONC_HOME`. For `prefect:` it calls `localconc._prefect.open_keeper()` at each use,
and imports that package only then. It does not remember the keeper, because the server's address is a setting of
Prefect, which may change while the variable stays. `open_keeper` remembers the keepers that it made, and handles forks
and the exit itself.

The public modules (`sync`, `asyncio`) do nothing for a call without names, or while limits are switched off. For any
other call, they call `acquire` with the checked call, the name of the thread or task, and its identity. They keep the
`Handle` for as long as the caller is to hold the slots, because a handle that is collected releases them, and pass it
to `release` at the end. If an exception interrupts `release`, they call `release_later`, which may be repeated, and let
the exception pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from uuid import UUID

    from localconc._engine.core.calls import Call
    from localconc._engine.core.history import Acquisition, Statistics
    from localconc._engine.core.records import Grant, LimitRef
    from localconc._engine.core.views import Event, Holder, Limit, Waiter
    from localconc._engine.engine import Engine


class Handle(Protocol):
    """One acquisition with either keeper. If it is collected before its slots are released, that releases them."""

    @property
    def serial(self) -> int:
        """Identifies the acquisition among those of this process with the same keeper."""

    @property
    def grant(self) -> Grant | None:
        """The granted slots; None before the grant."""


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
        """Acquires what a call asks for, and blocks the thread. Takes the thread's name and identity."""

    @property
    def release(self) -> Callable[[Any], None]:
        """Releases what `acquire` returned. If the keeper can't now, the background goes on with it."""

    @property
    def acquire_async(self) -> Callable[[Call, str, int], Coroutine[Any, Any, Handle]]:
        """Acquires what a call asks for, and suspends the task. Takes the task's name and identity."""

    @property
    def release_async(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """Releases what `acquire_async` returned, even if the task is cancelled meanwhile."""

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
        """Discard every holder of a limit; return those that the keeper knows."""

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

    def statistics(self, name_or_id: str | UUID | None, since: float | None) -> list[Statistics]:
        """Return the statistics of one limit, or of each."""
