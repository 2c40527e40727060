"""What keeps limits: this machine's engine, or a Prefect server. The faces use either through `Keeper`.

`registry.current()` chooses by `LOCALCONC_HOME` and returns a `Keeper`. What it does for this machine's engines is
its own affair. For `LOCALCONC_HOME=prefect:` it calls `localconc._prefect.open_keeper()` at each use, and imports that
package only then. It must not remember the keeper: the server's address is a setting of Prefect's, which may change
while the variable stays. `open_keeper` remembers the keepers that it made, and sees to forks and to the exit itself; a
test that wants to begin anew calls `localconc._prefect.close_keepers()`.

A face does this for a call: nothing for one without names or while limits are switched off; else `acquire` with the
checked call and the name of the thread or task. It tells the `Held` that it gets with `belong_to` which block owns it,
and calls `release` of `held.keeper` at the end, unless that is None. If an exception interrupts `release`, the face
calls `held.release_later()`, which may be repeated, and lets the exception pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence
    from uuid import UUID

    from pendulum import DateTime

    from localconc._engine.calls import Call
    from localconc._engine.event import Event
    from localconc._engine.views import Holder, Limit, Waiter


class Held(Protocol):
    """What a call holds, whoever keeps it: what `with concurrency(…) as occupancy` yields."""

    waited_seconds: float

    @property
    def keeper(self) -> Keeper | None: ...

    @property
    def slots(self) -> int: ...

    @property
    def acquired_at(self) -> DateTime: ...

    @property
    def limits(self) -> tuple[Limit, ...]: ...

    @property
    def numbers(self) -> tuple[int, ...]: ...

    def numbers_of(self, name: str) -> tuple[int, ...]: ...

    def belong_to(self, block: object) -> None:
        """Let the slots be released when the block is collected, if nobody releases them before."""

    def release_later(self) -> None:
        """Let the background release the slots, if they are still held."""


class Keeper(Protocol):
    """Limits, and who may have their slots now.

    Every method may raise `StoreError`; one that this keeper has no answer to raises `NotSupportedError`.
    """

    # ---- slots -----------------------------------------------------------------------------------------------

    def acquire(self, call: Call, requester: str) -> Held:
        """Acquire what a call asks for; block the thread, whose name is `requester`, until it is admitted."""

    def release(self, held: Any) -> None:
        """Release what `acquire` returned. Never fails for a keeper's troubles; the background goes on with it."""

    def acquire_async(self, call: Call, requester: str) -> Coroutine[Any, Any, Held]:
        """Acquire what a call asks for; suspend the task, whose name is `requester`, until it is admitted."""

    def release_async(self, held: Any) -> Coroutine[Any, Any, None]:
        """Release what `acquire_async` returned; if it is cancelled, the slots are released all the same."""

    # ---- administration: arguments are checked already -------------------------------------------------------

    def create(self, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit: ...

    def ensure(self, name: str, limit: int, *, active: bool, decay: float) -> Limit: ...

    def ensure_all(self, wanted: Iterable[tuple[str, int, bool, float]]) -> list[Limit]: ...

    def update(
        self,
        name_or_id: str | UUID,
        *,
        name: str | None,
        limit: int | None,
        active: bool | None,
        active_slots: int | None,
        decay: float | None,
    ) -> Limit: ...

    def delete(self, name_or_id: str | UUID) -> None: ...

    def read(self, name_or_id: str | UUID) -> Limit: ...

    def read_all(self) -> list[Limit]: ...

    def holders(self, name_or_id: str | UUID | None) -> list[Holder]: ...

    def waiters(self, name_or_id: str | UUID | None) -> list[Waiter]: ...

    def pause(self, name_or_id: str | UUID, seconds: float) -> Limit: ...

    def resume(self, name_or_id: str | UUID) -> Limit: ...

    def events(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]: ...

    def history(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> Sequence[Any]: ...

    def statistics(self, name_or_id: str | UUID, since: float | None) -> Any: ...

    def snapshot(self) -> Any:
        """Read all limits with what else there is to see, for `ls`, `inspect`, `watch` and the status line."""

    # ---- life ------------------------------------------------------------------------------------------------

    def close(self) -> None: ...

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork_in_child(self) -> None: ...
