"""What becomes of a request that is not admitted at once."""

from __future__ import annotations

from typing import NamedTuple

from localconc._engine.model import Party, Share, WaiterRow


class Waiting(NamedTuple):
    """The request is in the queue."""

    ticket: int
    secret: int
    party: Party
    shares: tuple[Share, ...]
    decays: bool
    retry_after: float

    @property
    def limit_ids(self) -> list[int]:
        return [share.limit_id for share in self.shares]


class Refused(NamedTuple):
    """The request was not admitted and does not wait."""

    reason: str
    limit_ids: list[int]


class Outlook(NamedTuple):
    """How a waiting request stands: its answer, or (with decay only before it) the moment it can be admitted.

    `limit_ids` are the limits it waits for by now; they change when one is deleted, created or renamed.
    `newest_owner_id` is that of the process that came last of all.
    """

    answered: WaiterRow | None
    due_at: float | None
    limit_ids: list[int]
    newest_owner_id: int
