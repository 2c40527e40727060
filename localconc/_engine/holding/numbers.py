"""Giving slot numbers: which of a limit's slots an acquisition has."""

from __future__ import annotations

from itertools import count, islice, repeat
from typing import TYPE_CHECKING

from localconc._engine.core import display
from localconc._engine.store.rows import listings
from localconc._engine.store.rows.statements import SET_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from sqlite3 import Connection

    from localconc._engine.core.records import Grant
    from localconc._engine.liveness.membership import Membership


def give_numbers(connection: Connection, what: tuple[Membership, Mapping[int, Grant], int]) -> Grant | None:
    """Give an acquisition of this process its numbers of each limit: the lowest ones that no present holder has.

    It is the work of one transaction.

    Returns:
        The grant with its numbers, in the order of its limits: None for one with decay, whose slots drain while they
        are held; () if it holds nothing of the limit any more. None if it was released.
    """
    membership, grants, serial = what
    grant = grants.get(serial)  # not from before: the store may have been opened anew
    if grant is None:
        return None
    owner_id = membership.owner_id
    numbers: list[tuple[int, ...] | None] = []
    for ref, known in zip(grant.refs, grant.numbers or repeat(None)):  # noqa: B905 - one is endless
        if known is not None:
            numbers.append(known)
            continue
        own, others, drains = listings.numbers_on(connection, ref.limit_id, owner_id, serial)
        if own is None or drains:
            numbers.append(None if drains else ())
            continue
        if own:
            given = display.numbers(own)
        else:
            taken = {number for text in others for number in display.numbers(text)}
            given = tuple(islice((number for number in count() if number not in taken), grant.slots))
            connection.execute(SET_NUMBERS, (",".join(map(str, given)), ref.limit_id, owner_id, serial))
        numbers.append(given)
    return grant._replace(numbers=tuple(numbers))
