"""A Prefect server as a `Keeper`: the parts of this package put together, and their life in this process."""

from __future__ import annotations

import atexit
import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn, TypeVar
from uuid import UUID

from localconc._locks import new_lock
from localconc._prefect import acquisitions, administration, threads
from localconc._prefect.address import address_in_settings
from localconc._prefect.admission import Admission
from localconc._prefect.connection import Connection
from localconc._prefect.errors import not_supported
from localconc._prefect.leases import Leases, lease_seconds
from localconc._prefect.notices import UnsetWarnings, publish_acquired, publish_released
from localconc._prefect.sender import Sender
from localconc._prefect.wakeups import Wakeups
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from localconc._prefect.address import Address
    from localconc._prefect.admission import Taken
    from localconc._prefect.leases import Hold
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
        self.admission = Admission(self.leases)
        self._warnings = UnsetWarnings()
        self._is_held_still = False

    # ---- slots -----------------------------------------------------------------------------------------------

    def acquire(self, call: Call, thread: str, context: int) -> Hold:
        """Acquire what a call asks for; block the thread until it is admitted."""
        begun = time.monotonic()
        taken = threads.run(self._acquiring(call), self.sender, self.wakeups)
        taken.hold.admit(time.monotonic() - begun, thread, call.request.label, context)
        return self._admitted(taken)

    def release(self, hold: Hold) -> None:
        """Release what `acquire` returned. Never fails, but for a lost lease of a call that wanted to be told so."""
        if not self.leases.is_held(hold):
            return
        is_lost = self.leases.is_lost(hold)
        try:
            threads.run(acquisitions.release(self.leases, hold), self.sender, self.wakeups)
        finally:
            publish_released(hold)
        _raise_if_lost(hold, is_lost)

    async def acquire_async(self, call: Call, task: str, context: int) -> Hold:
        """Acquire what a call asks for; suspend the task until it is admitted."""
        from localconc._prefect import tasks

        begun = time.monotonic()
        taken = await tasks.run(self._acquiring(call), self.sender, self.wakeups)
        taken.hold.admit(time.monotonic() - begun, task, call.request.label, context)
        return self._admitted(taken)

    async def release_async(self, hold: Hold) -> None:
        """Release what `acquire_async` returned; if it is cancelled, the slots are released all the same."""
        from localconc._prefect import tasks

        if not self.leases.is_held(hold):
            return
        is_lost = self.leases.is_lost(hold)
        try:
            await tasks.run(acquisitions.release(self.leases, hold), self.sender, self.wakeups)
        finally:
            publish_released(hold)
        _raise_if_lost(hold, is_lost)

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

    def _acquiring(self, call: Call) -> acquisitions.Steps[Taken]:
        lease_seconds(call)  # an argument out of range is the caller's to hear, before anything is asked
        return acquisitions.acquire(self.connection, self.admission, self.leases, call)

    def _admitted(self, taken: Taken) -> Hold:
        try:
            self._warnings.warn(taken.unset)
            self.leases.tell_of_release(taken.hold)
            publish_acquired(taken.hold)
        except BaseException:
            self.leases.release_later(taken.hold)
            raise
        return taken.hold

    # ---- administration --------------------------------------------------------------------------------------

    def create(self, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit:
        """Create a limit."""
        return self._perform(
            lambda server: administration.create(
                server, name, limit, active=active, active_slots=active_slots, decay=decay
            ),
            [name],
        )

    def ensure(self, name: str, limit: int, *, active: bool, decay: float) -> Limit:
        """Create a limit, or update the one of that name."""
        definition = name, limit, active, decay
        return self._perform(lambda server: administration.ensure(server, definition), [name])

    def ensure_all(self, wanted: Iterable[administration.Definition]) -> list[Limit]:
        """Create or update many limits; if the server refuses one, the error says how far it came."""
        definitions = list(wanted)
        self.admission.forget(name for name, *_ in definitions)
        return administration.ensure_all(self._perform, definitions)

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
        updated = self._perform(lambda server: administration.update(server, name_or_id, changes), [str(name_or_id)])
        self.wakeups.released([updated.name])
        return updated

    def reset(self, name_or_id: str | UUID) -> list[Holder]:
        """Set the occupied slots of a limit to 0. Who held them is not known."""
        self.update(name_or_id, active_slots=0)
        return []

    def delete(self, name_or_id: str | UUID) -> None:
        """Delete a limit."""
        self._perform(lambda server: administration.delete(server, name_or_id), [str(name_or_id)])

    def read(self, name_or_id: str | UUID) -> Limit:
        """Read a limit by name or id."""
        return self._perform(lambda server: administration.find(server, name_or_id))

    def read_all(self) -> list[Limit]:
        """Read all limits, sorted by name."""
        return administration.read_all(self._perform)

    def check_leases(self) -> None:
        """Make sure that the server gives leases."""
        self._perform(lambda server: server.check_leases())

    def _perform(self, question: Callable[[Connection], Result], changed_names: Iterable[str] = ()) -> Result:
        def ask(connection: Connection) -> Result:
            self.admission.forget(changed_names)
            return question(connection)

        return threads.run(acquisitions.perform(self.connection, ask), self.sender, self.wakeups)

    # ---- what a server can't do ------------------------------------------------------------------------------

    def holders(self, name_or_id: str | UUID | None) -> list[Holder]:
        """Raise `NotSupportedError`."""
        self._refuse("Who holds slots is not known", "read_limit(…).active_slots tells how many are taken.")

    def waiters(self, name_or_id: str | UUID | None) -> list[Waiter]:
        """Raise `NotSupportedError`."""
        self._refuse("Who waits for slots is not known", "It has no queue: those who wait ask again after a while.")

    def pause(self, name_or_id: str | UUID, seconds: float) -> Limit:
        """Raise `NotSupportedError`."""
        self._refuse(
            "Limits can't be paused for a time", "Use update_limit(…, limit=0), and later set the limit that it had."
        )

    def resume(self, name_or_id: str | UUID) -> Limit:
        """Raise `NotSupportedError`."""
        self._refuse("Limits can't be paused for a time", "Use update_limit(…, limit=N) on a limit that was set to 0.")

    def events(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> list[Event]:
        """Raise `NotSupportedError`."""
        self._refuse("No history of events is kept", "Use localconc.events.subscribe in the processes that take slots.")

    def history(self, name_or_id: str | UUID | None, since: float | None, newest: int | None) -> NoReturn:
        """Raise `NotSupportedError`."""
        self._refuse("No history is kept", "Use localconc.events.subscribe in the processes that take slots.")

    def statistics(self, name_or_id: str | UUID, since: float | None) -> NoReturn:
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

    def before_fork(self) -> None:
        """Let no question be under way."""
        self._is_held_still = self.sender.hold_still()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._is_held_still:
            self.sender.go_on()

    def after_fork_in_child(self) -> None:
        """Give up all leases: they are the parent's, which renews and releases them."""
        self.leases.forget()


def _raise_if_lost(hold: Hold, is_lost: bool) -> None:
    # A body that raised keeps its exception: leaving the block then runs while it is handled.
    if is_lost and hold.raises_when_lost and sys.exc_info()[0] is None:
        raise StoreError(f"The lease of {hold} was lost while the body ran, and others may have had the slots as well.")


# ---- the keepers of this process -------------------------------------------------------------------------------------

_keepers: dict[Address, PrefectKeeper] = {}
_lock = new_lock()


def open_keeper() -> PrefectKeeper:
    """The keeper for the server that Prefect's settings name at this moment.

    Raises:
        StoreError: Prefect is not installed, no address is set, or it can't be used.
    """
    address = address_in_settings()
    keeper = _keepers.get(address)
    if keeper is not None and keeper.pid == os.getpid():
        return keeper
    if keeper is not None:  # a fork that Python does not know of
        _after_fork_in_child()
    with _lock:
        keeper = _keepers.get(address)
        if keeper is None:
            keeper = _keepers[address] = PrefectKeeper(address)
            _close_at_the_end_of_a_worker()
        return keeper


def server_address() -> str:
    """The address of the server, without credentials, as messages show it.

    Raises:
        StoreError: Prefect is not installed, or no address is set.
    """
    return address_in_settings().shown


def close_keepers() -> None:
    """Close all keepers and forget them; the next use makes them anew."""
    with _lock:
        keepers = list(_keepers.values())
        _keepers.clear()
    for keeper in keepers:
        keeper.close()


def _close_at_the_end_of_a_worker() -> None:
    """Release at the end of a process of multiprocessing, too, which runs no `atexit`."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, close_keepers, exitpriority=0)


def _before_fork() -> None:
    _lock.acquire()
    for keeper in _keepers.values():
        keeper.before_fork()


def _after_fork_in_parent() -> None:
    for keeper in _keepers.values():
        keeper.after_fork_in_parent()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = new_lock()
    for keeper in _keepers.values():
        keeper.after_fork_in_child()
    _keepers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(close_keepers)
