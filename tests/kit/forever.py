"""Who waits forever: the rule of deadlocks, word for word as the contract has it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

#: The ticket of a request that is not queued yet.
LAST = 2**62


class Wish(NamedTuple):
    """A thread that waits for as long as it takes."""

    ticket: int
    thread: Hashable
    slots: int
    limit_ids: frozenset[int]


class Hold(NamedTuple):
    """Slots of one limit that a thread holds."""

    thread: Hashable
    limit_id: int
    slots: int


def wait_forever(wishes: Iterable[Wish], holds: Iterable[Hold], sizes: dict[int, int]) -> set[int]:
    """Return the tickets that no release admits: word for word what the contract says, however long it takes."""
    left = set(wishes)
    before = None
    while before != len(left):
        before = len(left)
        for wish in list(left):
            waiting = {each.thread for each in left}
            kept = dict.fromkeys(sizes, 0)
            for hold in holds:
                if hold.thread in waiting and hold.limit_id in kept:
                    kept[hold.limit_id] += hold.slots
            ahead = {limit_id for each in left if each.ticket < wish.ticket for limit_id in each.limit_ids}
            counting = wish.limit_ids & sizes.keys()
            if not ahead & counting and all(kept[each] + wish.slots <= sizes[each] for each in counting):
                left.discard(wish)
    return {wish.ticket for wish in left}
