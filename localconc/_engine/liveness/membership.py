"""The membership of this process in a store, from the moment it joins to the moment it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from localconc._engine.core.errors import remedy_for, shown
from localconc._engine.core.records import LostLog, OwnerRow
from localconc._engine.liveness import open_logs
from localconc._engine.liveness import owner as owners
from localconc._engine.liveness.owner import Owner
from localconc._engine.liveness.processes import started
from localconc._engine.queue import cleanup
from localconc._engine.queue.definitions import define
from localconc._engine.store import definitions_log
from localconc._engine.store.rows import listings, owner_rows
from localconc._engine.store.rows.ledger import Ledger
from localconc._engine.store.rows.schema import NEVER_BOOTED
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from localconc._engine.core.clock import Clock
    from localconc._engine.store.store import Transaction

#: The owner id of a process that has not joined yet. No row has it, so no process acquires anything with it.
NOT_JOINED: Final = -2

#: How much longer than by the wall clock a limit may drain by the boot clock. If it is more, the store's moments come
#: from another boot.
CLOCK_TOLERANCE_SECONDS: Final = 60.0


class Membership:
    """This process as an owner in the store of one home.

    Args:
        directory: the home.
        clock: tells the time, and which boot this is.
        on_joined: called in the transaction in which this process joins another store than before; notes there what
            the process holds.

    Attributes:
        owner: the locked file of this process; None until it has joined.
        owner_id: the number of this process in the store.
        generation: how often this process has joined a store: what it knew of the one before, it must not use any more.
    """

    def __init__(self, directory: Path, clock: Clock, on_joined: Callable[[Transaction], None]) -> None:
        self._directory = directory
        self._clock = clock
        self._on_joined = on_joined
        self._joined: object = None
        self.owner: Owner | None = None
        self.owner_id = NOT_JOINED
        self.generation = 0

    @property
    def has_joined(self) -> bool:
        """Whether this process has joined a store; before that, it has nothing to undo."""
        return self.owner_id != NOT_JOINED

    def join(
        self, store: object, inodes: tuple[int, int], read: Callable[..., object], transact: Callable[..., object]
    ) -> bool:
        """Make this process known to a store that has just been opened; return whether it was not known before.

        Args:
            store: what tells this store's file from any other.
            inodes: of the open database and its log.
            read: does some work on the ledger while the store is being opened.
            transact: does some work in a transaction while the store is being opened.
        """
        owner = self._locked_owner()
        open_logs.note(owner, *inodes)
        owner_id = read(lambda ledger: self._known_as(ledger, owner.key))
        if owner_id is not None and store == self._joined:
            self.owner_id = int(str(owner_id))
            return False
        self.generation += 1
        transact(lambda txn: self._join(txn, owner))
        self._joined = store
        return True

    def _known_as(self, ledger: Ledger, key: str) -> int | None:
        return None if self._is_of_another_boot(ledger) else owner_rows.with_key(ledger.connection, key)

    def _locked_owner(self) -> Owner:
        try:
            if self.owner is not None and not self.owner.holds_its_descriptor():
                self.owner = None  # other code has closed it, so other processes may believe that this one is dead
            if self.owner is None:
                self.owner = Owner(self._directory)
            self.owner.ensure_file()
        except OSError as error:
            otherwise = (
                "make the directory and its subdirectory owners writable, leave some space, or set LOCALCONC_HOME to "
                "another directory"
            )
            raise StoreError(
                f"No file can be created in {shown(self._directory)} ({error.strerror or error}): "
                f"{remedy_for(error, otherwise)}."
            ) from error
        return self.owner

    def _join(self, txn: Transaction, owner: Owner) -> None:
        boot_identity = txn.ledger.meta("boot_identity")
        if boot_identity == NEVER_BOOTED:
            self.restore_definitions(txn)
        elif self._is_of_another_boot(txn.ledger) and not self._has_living_owner(txn.ledger):
            cleanup.after_reboot(txn)
        txn.ledger.set_meta("boot_identity", self._clock.boot_identity())
        txn.ledger.set_meta("booted_wall", repr(self._clock.wall() - self._clock.now()))
        owner_id = owner_rows.with_key(txn.ledger.connection, owner.key)
        if owner_id is None:
            row = OwnerRow(0, owner.key, owner.pid, owner.pid_namespace, owner.started, owner.command)
            owner_id = owner_rows.insert(txn.ledger.connection, row)
        self.owner_id = owner_id
        definitions_log.rewrite_if_long(self._directory, lambda: listings.configured_limits(txn.ledger.connection))
        self._on_joined(txn)

    def _is_of_another_boot(self, ledger: Ledger) -> bool:
        """Return whether the clocks say that the machine has rebooted since a process last used the store.

        A container may have a boot identity of its own, so it was a reboot only if no owner in the store lives.
        """
        boot_identity = self._clock.boot_identity()
        if boot_identity and ledger.meta("boot_identity") != boot_identity:
            return True
        now, wall = self._clock.now(), self._clock.wall()
        if boot_identity and _is_close(ledger.meta("booted_wall"), wall - now):
            return False  # else the wall clock was set, or this is one of the boards whose identity never changes
        if listings.latest_moment(ledger.connection) > now:
            return True
        return any(
            empty_at - now > max(0.0, empty_at_wall - wall) + CLOCK_TOLERANCE_SECONDS
            for _, empty_at, empty_at_wall in listings.decaying_totals(ledger.connection)
        )

    def _has_living_owner(self, ledger: Ledger) -> bool:
        own_key = "" if self.owner is None else self.owner.key
        return any(
            owners.is_alive(self._directory, row)
            for row in owner_rows.read_all(ledger.connection)
            if row.key != own_key
        )

    def restore_definitions(self, txn: Transaction, names: Collection[str] | None = None) -> None:
        """Define the limits that a store lacks from the log beside it: those with these names, or all for None."""
        from uuid import UUID

        for name, fields in definitions_log.replay(self._directory).items():
            if (names is None or name in names) and txn.ledger.limit_named(name) is None:
                define(
                    txn,
                    name,
                    limit=int(fields["limit"]),
                    active=bool(fields["active"]),
                    configured=True,
                    declared=bool(fields.get("declared", True)),
                    decay=float(fields["slot_decay_per_second"]),
                    identity=UUID(fields["id"]),
                    created=float(fields["created"]),
                )
        txn.definitions.clear()  # the log has them already
        txn.is_durable = False

    # ---- changes ---------------------------------------------------------------------------------------------

    def become_command(self, txn: Transaction, pid: int, command: str) -> None:
        """Let a command that this process started hold its slots, until the command ends."""
        owner_rows.become_command(txn.ledger.connection, self.owner_id, pid, started(pid), command)

    def living_others(self) -> list[int]:
        """Return the pids of the other living processes that use the home, whether or not a store knows them."""
        return sorted(owners.living(self._directory, self.owner.key if self.owner else "").values())

    def lost_logs(self) -> list[LostLog]:
        """Return the logs that others have open and that were removed from their path."""
        return open_logs.lost_logs(self._directory, self.owner.key if self.owner else "")

    def forget_logs(self, logs: list[LostLog]) -> None:
        """Let logs that were brought back count as lost no more."""
        for lost in logs:
            open_logs.forget(self._directory, lost.key)

    def close_log(self) -> None:
        """Note that this process closes the log that it has open."""
        if self.owner is not None:
            open_logs.note_none(self.owner)

    def is_claim_in_place(self) -> bool:
        """Return whether others can see that this process lives; if not, the next opening of the store sees to it."""
        return self.owner is None or self.owner.is_in_place()

    def leave(self, txn: Transaction, *, may_hold: bool) -> None:
        """Take this process out of the store; `may_hold` says whether calls of it are under way."""
        cleanup.leave(txn, self.owner_id, may_hold=may_hold)

    def retire(self) -> None:
        """Give up the locked file, after this process has left the store."""
        owner, self.owner, self.owner_id = self.owner, None, NOT_JOINED
        self._joined = None
        if owner is not None:
            owner.retire()

    def close_in_child(self) -> None:
        """Close the parent's locked file in a forked child, without giving up the parent's claim."""
        owner, self.owner, self.owner_id = self.owner, None, NOT_JOINED
        self._joined = None
        if owner is not None:
            owner.close_in_child()


def _is_close(noted: str | None, booted_wall: float) -> bool:
    """Return whether a moment of the last boot, as the store has it, is the one that the clocks tell now."""
    try:
        return noted is not None and abs(float(noted) - booted_wall) <= CLOCK_TOLERANCE_SECONDS
    except ValueError:
        return False
