"""What this process holds in one store: its grants by serial, with the handles that keep them."""

from __future__ import annotations

import itertools
from os import getpid
from time import sleep
from typing import TYPE_CHECKING, Final

from localconc._engine import events
from localconc._engine.core.calls import CONCURRENCY
from localconc._engine.core.errors import Busy
from localconc._engine.core.records import Grant
from localconc._engine.holding.finalizers import Finalizers
from localconc._engine.holding.numbers import give_numbers
from localconc._engine.holding.releases import BackgroundReleases
from localconc._engine.queue import cleanup

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.core.calls import Request
    from localconc._engine.liveness.membership import Membership
    from localconc._engine.store.store import Store, Transaction

#: Without a thread in the background, the caller tries this often, with pauses, until another process has written.
_MAX_ATTEMPTS_IN_CALLER: Final = 200
_RETRY_SECONDS: Final = 0.005


class Handle:
    """One acquisition of this process, from before the store is asked until its slots are released.

    If it is collected before, the slots are released in the background, however far the acquisition got.

    Attributes:
        serial: the number of the acquisition in this process.
        thread: name of the thread or task.
        label: the label of the call.
        context: identifies the thread or task; 0 if any thread or task may release the slots.
        grant: the granted slots; None before the grant.
        limit_ids: the limits of which it may have slots: none before anything was written, None while this process does
            not know them.
        ticket: the ticket of the queued request; None if it was not queued.
    """

    __slots__ = ("__weakref__", "context", "grant", "label", "limit_ids", "serial", "thread", "ticket")

    serial: int
    thread: str
    label: str
    context: int
    grant: Grant | None
    limit_ids: tuple[int, ...] | None
    ticket: int | None


class Holdings:
    """The grants of this process.

    Attributes:
        next_serial: returns the number of the next acquisition of this process.
        grants: what this process holds, by serial.
    """

    def __init__(self, store: Store, membership: Membership) -> None:
        self._store = store
        self._membership = membership
        self._pid = getpid()
        self.next_serial: Callable[[], int] = itertools.count(1).__next__
        self.grants: dict[int, Grant] = {}
        self._background = BackgroundReleases(self._undo_in_background, self._lost)
        self._finalizers = Finalizers(self._background.start)

    # ---- handles ---------------------------------------------------------------------------------------------

    def begin(self, thread: str, label: str, context: int) -> Handle:
        """Begin an acquisition.

        The finalizer comes before the first statement, so an interrupt between them is undone.
        """
        handle = Handle()
        handle.serial = serial = self.next_serial()
        finalizers = self._finalizers
        finalizers[serial] = finalizers.reference(handle, finalizers.start)
        handle.thread, handle.label, handle.context = thread, label, context
        handle.grant = handle.ticket = None
        handle.limit_ids = ()
        return handle

    def hold(self, handle: Handle, grant: Grant, request: Request) -> None:
        """Note a grant. Slots that no caller will release (of rate_limit, or of no limit) need no finalizer.

        The caller has the lock of the database since the grant. Otherwise another thread could make this process join
        another store in between, and would not take these slots along.
        """
        handle.grant = grant
        if grant.refs and request.mode == CONCURRENCY:
            self.grants[handle.serial] = grant
        else:
            self.forget(handle.serial)

    def publish_acquired(self, handle: Handle) -> Handle:
        """Tell the subscribers of this process of an acquisition; return it. The caller has no lock."""
        grant = handle.grant
        if events.subscribers and grant is not None:
            owner_id = self._membership.owner_id
            events.publish(events.ACQUIRED, grant.acquired_wall, grant.refs, grant.slots, owner_id, handle.serial)
        return handle

    def publish_released(self, serial: int, grant: Grant, now: float) -> None:
        """Tell the subscribers of this process of a release. The caller has no lock."""
        if events.subscribers:
            released_wall = grant.acquired_wall + (now - grant.acquired_boot)  # the moment in the history
            owner_id = self._membership.owner_id
            events.publish(events.RELEASED, released_wall, grant.refs, grant.slots, owner_id, serial)

    def forget(self, serial: int) -> None:
        """Forget an acquisition that holds nothing (any more)."""
        self.grants.pop(serial, None)
        self._finalizers.pop(serial, None)

    @property
    def contexts(self) -> set[int]:
        """The threads and tasks that hold something."""
        return {grant.context for grant in list(self.grants.values())}

    def handle_of(self, serial: int) -> Handle | None:
        """Return the handle of an acquisition that holds slots; None if they were released."""
        finalizer = self._finalizers.get(serial)
        handle = None if finalizer is None else finalizer()
        return handle if isinstance(handle, Handle) else None

    def numbers(self, serial: int) -> dict[str, tuple[int, ...] | None]:
        """Return the slot numbers of an acquisition by the name of the limit; they are given when first asked for.

        Returns:
            None for a limit with decay; () for one of which it holds nothing any more. Nothing at all if it was
            released.

        Raises:
            Busy: another process is writing.
        """
        grant = self.grants.get(serial)
        if grant is not None and (not grant.numbers or None in grant.numbers):  # a decay may have ended since
            what = (self._membership, self.grants, serial)
            with self._store.database.lock:  # so that no other thread releases it in between, and it would come back
                grant = self._store.database.transact("BEGIN IMMEDIATE", give_numbers, what)
                if grant is not None and serial in self.grants:
                    self.grants[serial] = grant
        return {} if grant is None else {ref.name: own for ref, own in zip(grant.refs, grant.numbers, strict=True)}

    # ---- undoing ---------------------------------------------------------------------------------------------

    def undo(self, handle: Handle) -> None:
        """Undo an acquisition that was interrupted, now or as soon as the store allows."""
        try:
            self._undo(handle.serial, handle.limit_ids, handle.ticket)
        except Exception:
            self.release_later(handle)
        except BaseException:  # interrupted again
            self.release_later(handle)
            raise

    def _undo(self, serial: int, limit_ids: tuple[int, ...] | None, ticket: int | None) -> None:
        def work(txn: Transaction) -> None:
            # This process may have joined another store for this transaction, where its limits have other numbers.
            grant = self.grants.get(serial)
            ids = limit_ids if grant is None else tuple(ref.limit_id for ref in grant.refs)
            cleanup.undo(txn, self._membership.owner_id, serial, ids, ticket)

        if getpid() != self._pid:  # C code has forked this process, which drops a copy of its parent's handle
            self.forget(serial)
            return
        has_nothing = ticket is None and limit_ids == () and serial not in self.grants
        with self._store.database.lock:  # a process that has left the store must not join it again for this
            if self._membership.has_joined and not has_nothing:
                self._store.transact(work)
            self.forget(serial)

    def _undo_in_background(self, serial: int, limit_ids: tuple[int, ...] | None, ticket: int | None) -> None:
        with self._store.database.lock:  # with which all are forgotten; after that, the store must not be opened again
            if self._background.has(serial):
                self._undo(serial, limit_ids, ticket)

    def being_released(self) -> set[int]:
        """Return the acquisitions that the background releases: their threads have let go of them already."""
        return self._background.serials().union(self._lost())

    def release_later(self, handle: Handle) -> None:
        """Release in the background, and retry until it succeeds, or until this process dies."""
        self._background.add(handle.serial, handle.limit_ids, handle.ticket)

    def _lost(self) -> list[int]:
        return self._finalizers.lost()

    def release_all_lost(self) -> None:
        """Release now the slots that wait for the background, and those whose handle was collected.

        Raises:
            Busy: another process is writing.
        """
        for pending in self._background.pending():
            self._undo(*pending)
        for serial in self._finalizers.keys() | self.grants.keys():
            if self.handle_of(serial) is None:
                self._undo(serial, None, None)

    def release_in_caller(self) -> None:
        """From now on, let the thread that drops a handle release its slots: Python starts no threads any more."""
        self._finalizers.release_in_caller(self._release_lost_in_caller)

    def _release_lost_in_caller(self) -> None:
        for _ in range(_MAX_ATTEMPTS_IN_CALLER):
            try:
                self.release_all_lost()
            except Busy:
                sleep(_RETRY_SECONDS)
            except Exception:  # this interrupted a transaction of its own thread: the next loss, or the end, releases
                return
            else:
                return

    # ---- another store, another process ----------------------------------------------------------------------

    def names_lacking_in(self, txn: Transaction) -> set[str]:
        """Return the names of limits that a store lacks, and of which this process holds slots."""
        names = {ref.name for grant in self.grants.values() for ref in grant.refs}
        return {name for name in names if txn.ledger.limit_named(name) is None}

    def on_joined(self, txn: Transaction) -> None:
        """Note the slots of this process in a store that it has just joined."""
        in_flight = (self._finalizers.keys() | self._background.serials()) - self.grants.keys()
        self.grants.update(cleanup.reinsert_grants(txn, self._membership.owner_id, self.grants, in_flight))

    @property
    def has_unfinished(self) -> bool:
        """Whether the store may have slots of this process without a grant here, because calls are under way."""
        return bool(self._finalizers or self._background.serials())

    def forget_all(self) -> None:
        """Forget all slots without a release: they are the parent's, or the end of the process frees them."""
        self.grants.clear()
        self._finalizers.clear()
        self._background.clear()
