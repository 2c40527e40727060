"""A Prefect server as a `Keeper`: the parts of this package put together."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn, TypeVar
from uuid import UUID

from localconc._prefect import administration
from localconc._prefect.acquiring import acquisitions
from localconc._prefect.acquiring.admission import Admission
from localconc._prefect.asking import threads
from localconc._prefect.asking.sender import Sender
from localconc._prefect.asking.wakeups import Wakeups
from localconc._prefect.holding.leases import Leases, lease_seconds
from localconc._prefect.holding.notices import UnsetWarnings, publish_acquired, publish_released
from localconc._prefect.server.connection import Connection
from localconc._prefect.server.errors import not_supported
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from localconc._prefect.acquiring.admission import Taken
    from localconc._prefect.asking.steps import Steps
    from localconc._prefect.holding.leases import Hold
    from localconc._prefect.server.address import Address
    from localconc._prefect.shared import Call, Event, Holder, Limit, LimitRef, Waiter

Result = TypeVar("Result")

#: How long the end of a process waits until all is released.
CLOSE_SECONDS = 5.0


class PrefectKeeper:
    """The limits of one Prefect server, and what this process holds of them. See `localconc._keeper.Keeper`.

    Args:
        address: of the server.

    Raises:
        StoreError: the address can't be used.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pid = os.getpid()
        self.connection = Connection(self.address)
        self.sender = Sender(self.connection)
        self.wakeups = Wakeups()
        self.leases = Leases(self.sender, self.wakeups.released, publish_released)
        self.admission = Admission(self.leases, self.wakeups)
        self._warnings = UnsetWarnings()

    # ---- slots -----------------------------------------------------------------------------------------------

    def acquire(self, call: Call, thread: str, context: int) -> Hold:
        """Acquire what a call asks for; block the thread until it is admitted."""
        begun = time.monotonic()
        taken = threads.run(self._acquiring(call), self.sender, self.wakeups)
        taken.hold.admit(time.monotonic() - begun, thread, call.request.label, context)
        return self._admitted(taken)

    def release(self, hold: Hold) -> None:
        """Release what `acquire` returned. Raise only if its lease was lost, for a call that asked for this error."""
        if not self._holds(hold):
            return
        is_lost = self.leases.is_lost(hold)
        try:
            threads.run(acquisitions.release(self.leases, hold), self.sender, self.wakeups)
        finally:
            publish_released(hold)
        _raise_if_lost(hold, is_lost)

    async def acquire_async(self, call: Call, task: str, context: int) -> Hold:
        """Acquire what a call asks for; suspend the task until it is admitted."""
        from localconc._prefect.asking import tasks

        begun = time.monotonic()
        taken = await tasks.run(self._acquiring(call), self.sender, self.wakeups)
        taken.hold.admit(time.monotonic() - begun, task, call.request.label, context)
        return self._admitted(taken)

    async def release_async(self, hold: Hold) -> None:
        """Release what `acquire_async` returned; if it is cancelled, the slots are released all the same."""
        from localconc._prefect.asking import tasks

        if not self._holds(hold):
            return
        is_lost = self.leases.is_lost(hold)
        try:
            await tasks.run(acquisitions.release(self.leases, hold), self.sender, self.wakeups)
        finally:
            publish_released(hold)
        _raise_if_lost(hold, is_lost)

    def _holds(self, hold: Hold) -> bool:
        """Return whether this process holds something; a child that C code forked may not know yet that it does not."""
        return self.pid == os.getpid() and self.leases.is_held(hold)

    def release_later(self, hold: Hold) -> None:
        """Let the background release what is still held."""
        self.leases.release_later(hold)

    def handle_of(self, serial: int) -> Hold | None:
        """Return the hold with this serial; None if it was released."""
        return self.leases.hold_of(serial)

    def numbers(self, serial: int) -> NoReturn:
        """Raise `NotSupportedError`."""
        self._refuse("Slots have no numbers", "Use a limit of 1 for each thing that is numbered.")

    def read_refs(self, refs: Iterable[LimitRef]) -> tuple[Limit, ...]:
        """Read the limits of a hold as they are now; deleted ones are left out."""
        ids = [UUID(bytes=ref.uuid) for ref in refs]
        return self._perform(lambda server: administration.read_those(server, ids)) if ids else ()

    def _acquiring(self, call: Call) -> Steps[Taken]:
        lease_seconds(call)  # raises for an argument out of range before the server is asked
        return acquisitions.acquire(self.connection, self.admission, self.leases, call)

    def _admitted(self, taken: Taken) -> Hold:
        try:
            self._warnings.warn(taken.unset)
            self.leases.tell_of_release(taken.hold)
            publish_acquired(taken.hold, taken.hold.acquired_at)
        except BaseException:
            self.leases.release_later(taken.hold)
            raise
        return taken.hold

    # ---- administration --------------------------------------------------------------------------------------

    def create(self, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit:
        """Create a limit."""
        (created,) = self._change(
            lambda server: [
                administration.create(server, name, limit, active=active, active_slots=active_slots, decay=decay)
            ]
        )
        return created

    def ensure(self, name: str, limit: int, *, active: bool, decay: float) -> Limit:
        """Create a limit, or update the one of that name."""
        return self._ensure((name, limit, active, decay))

    def ensure_all(self, wanted: Iterable[administration.Definition]) -> list[Limit]:
        """Create or update many limits; if the server refuses one, the error says how far it came."""
        definitions = list(wanted)
        return administration.ensure_all(self.read_all(), definitions, self._ensure)

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
        """Change a limit. `active_slots` is set on the server; leases go on, and their release counts down from it."""
        wanted = {
            "name": name,
            "limit": limit,
            "active": active,
            "active_slots": active_slots,
            "slot_decay_per_second": decay,
        }
        changes = {field: value for field, value in wanted.items() if value is not None}
        _, updated = self._change(lambda server: administration.update(server, name_or_id, changes))
        return updated

    def reset(self, name_or_id: str | UUID) -> list[Holder]:
        """Set the occupied slots of a limit to 0. Return no holders: the server does not tell them."""
        self.update(name_or_id, active_slots=0)
        return []

    def delete(self, name_or_id: str | UUID) -> None:
        """Delete a limit."""
        self._change(lambda server: [administration.delete(server, name_or_id)])

    def read(self, name_or_id: str | UUID) -> Limit:
        """Read a limit by name or id."""
        return self._perform(lambda server: administration.find(server, name_or_id))

    def read_all(self) -> list[Limit]:
        """Read all limits, sorted by name."""
        return administration.read_all(self._perform)

    def check_leases(self) -> None:
        """Make sure that the server gives leases."""
        self._perform(lambda server: server.check_leases())

    def _ensure(self, definition: administration.Definition) -> Limit:
        (limit,) = self._change(lambda server: [administration.ensure(server, definition)])
        return limit

    def _change(self, question: Callable[[Connection], list[Limit]]) -> list[Limit]:
        """Let `question` change limits, which it returns; waiters of this process then ask again at once."""

        def ask(connection: Connection) -> list[Limit]:
            limits = question(connection)
            self.admission.forget(limit.name for limit in limits)
            return limits

        limits = self._perform(ask)
        self.wakeups.changed([limit.name for limit in limits])
        return limits

    def _perform(self, question: Callable[[Connection], Result]) -> Result:
        return threads.run(acquisitions.perform(self.connection, question), self.sender, self.wakeups)

    # ---- what a server can't do ------------------------------------------------------------------------------

    def holders(self, name_or_id: str | UUID | None) -> list[Holder]:
        """Raise `NotSupportedError`."""
        self._refuse("The holders of slots are not known", "read_limit(…).active_slots tells how many are taken.")

    def waiters(self, name_or_id: str | UUID | None) -> list[Waiter]:
        """Raise `NotSupportedError`."""
        self._refuse("The waiters for slots are not known", "It has no queue: a waiter asks again after a while.")

    def pause(self, name_or_id: str | UUID, seconds: float) -> Limit:
        """Raise `NotSupportedError`."""
        self._refuse(
            "Limits can't be paused for a time",
            "Use update_limit(…, limit=0) or `localconc update NAME --limit 0`, and later set the limit that it had.",
        )

    def resume(self, name_or_id: str | UUID) -> Limit:
        """Raise `NotSupportedError`."""
        self._refuse(
            "Limits can't be paused for a time",
            "Use update_limit(…, limit=N) or `localconc update NAME --limit N` on a limit that was set to 0.",
        )

    def events(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]:
        """Raise `NotSupportedError`."""
        self._refuse("No history of events is kept", "Use localconc.events.subscribe in the processes that take slots.")

    def history(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> NoReturn:
        """Raise `NotSupportedError`."""
        self._refuse("No history is kept", "Use localconc.events.subscribe in the processes that take slots.")

    def statistics(self, name_or_id: str | UUID | None, since: float | None) -> NoReturn:
        """Raise `NotSupportedError`."""
        self._refuse("No statistics are kept", "Use localconc.events.subscribe in the processes that take slots.")

    def machine(self, what: str) -> NoReturn:
        """Raise `NotSupportedError`."""
        self._refuse(f"{what} needs the limits of this machine", "Unset LOCALCONC_HOME, or set it to a directory.")

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        raise not_supported(self.address.shown, what, remedy)

    # ---- life ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release all that this process still holds, as far as the server answers, and end the sending thread."""
        if self.pid != os.getpid():
            return
        self.leases.release_all()
        if self.sender.stop(CLOSE_SECONDS):
            self.connection.close()

    def after_fork_in_child(self) -> None:
        """Give up all leases: they are the parent's, which renews and releases them."""
        self.leases.forget()


def _raise_if_lost(hold: Hold, is_lost: bool) -> None:
    # A body that raised keeps its exception: leaving the block then runs while it is handled.
    if is_lost and hold.raises_when_lost and sys.exc_info()[0] is None:
        raise StoreError(f"The lease of {hold} was lost while the body ran, and others may have had the slots as well.")
