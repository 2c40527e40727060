"""A store whose dead are noticed: by a watch on all its processes, and by a look at those in front of who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine import owners
from localconc._engine.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from localconc._engine.clock import Clock
    from localconc._engine.turn import Turn


class WatchingStore(Store):
    """One home, in this process, with a watch on the other processes.

    Attributes:
        is_alone: whether no other process takes part: then nobody looks for lost signals and deaths.
    """

    is_alone = False

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.watch = owners.Watch()

    def _register(self, turn: Turn, owner: owners.Owner) -> None:
        super()._register(turn, owner)
        self.watch.forget()  # in another store, the same ids are others

    def start_watching(self) -> None:
        """Watch every process that is in the store now: whoever is in front of a waiter is among them."""
        rows = self.look_up(lambda ledger: ledger.owners_after(self.watch.newest_owner_id))
        others = [row for row in rows if row.id != self.owner_id]
        with self.database.lock:
            self.watch.add(others)
        for owner in others:  # a pid may have passed on to another process before its pidfd was opened
            if not owners.is_alive(self.directory, owner):
                self.reap(owner)
                with self.database.lock:
                    self.watch.remove(owner, ended=True)
        # Only now: where the store was busy, all of this is done again.
        self.watch.newest_owner_id = max([self.watch.newest_owner_id, *(row.id for row in rows)])

    @property
    def watches_everybody(self) -> bool:
        """Whether signals and deaths reach a waiter by themselves, so that it need not look often."""
        return self.watch.is_complete

    def reap_suspects(self) -> None:
        """Look at the owners that seem to have died, and give back what the dead ones held."""
        with self.database.lock:
            suspects = self.watch.suspects()
        for suspect in suspects:
            owner = self._as_it_is_by_now(suspect)
            alive = owner is not None and owners.is_alive(self.directory, owner)
            if owner is not None and not alive:
                self.reap(owner)
            with self.database.lock:
                self.watch.remove(owner or suspect, ended=not alive)

    def _as_it_is_by_now(self, suspect: owners.OwnerRow) -> owners.OwnerRow | None:
        """None for one that has left, or that another has cleared up after: of all who watched, one has to.

        One that became the command it started is watched as that from now on.
        """
        owner = self.look_up(lambda ledger: ledger.owner(suspect.id))
        if owner is not None and owner != suspect:
            with self.database.lock:
                self.watch.remove(suspect, ended=True)
                self.watch.add([owner])
        return owner

    def notice_deaths(self) -> None:
        """Clear up after processes that have died, so that nobody looks at what they held."""
        self.database.ensure_open()
        if not self.is_alone:
            self.start_watching()
            self.reap_suspects()

    def reap_in_front(self, limit_ids: list[int]) -> bool:
        """Look at the owners that hold or wait on these limits; True if one of them was dead."""
        in_front = self.look_up(lambda ledger: ledger.owners_holding(limit_ids))
        dead = [owner for owner in in_front if owner.id != self.owner_id and not owners.is_alive(self.directory, owner)]
        for owner in dead:
            self.reap(owner)
        return bool(dead)

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self.watch.close()
