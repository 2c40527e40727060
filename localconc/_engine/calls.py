"""One call of `concurrency` or `rate_limit`, checked: the same for both faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from localconc._engine import arguments
from localconc._engine.model import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.model import Mode


class Call(NamedTuple):
    """What is asked for, and how long the caller stays."""

    request: Request
    timeout_seconds: float | None
    max_retries: int | None


#: Calls without further options, by mode, names and slots: the same line of a program runs many times.
_plain_calls: dict[tuple[Any, ...], Call] = {}
_MOST_PLAIN_CALLS = 1_000


def checked_call(
    mode: Mode,
    names: str | Iterable[str] | None,
    occupy: int,
    timeout_seconds: float | None,
    create_if_missing: bool | None,
    max_retries: int | None,
    limit: int | None,
    slot_decay_per_second: float | None,
    strict: bool,
) -> Call:
    """Check the arguments of a call.

    Raises:
        ValueError, TypeError: one is out of range; the message names it and the value.
    """
    plain = (
        type(names) is str
        and type(occupy) is int
        and timeout_seconds is max_retries is limit is slot_decay_per_second is None
        and create_if_missing is True
        and strict is False
    )
    if plain:
        known = _plain_calls.get((mode, names, occupy))
        if known is not None:
            return known
    request = Request(
        names=arguments.limit_names(names),
        slots=arguments.whole("occupy", occupy, 1),
        mode=mode,
        create_if_missing=bool(create_if_missing),
        limit=None if limit is None else arguments.whole("limit", limit, 0),
        slot_decay_per_second=None if slot_decay_per_second is None else arguments.decay(slot_decay_per_second),
        strict=arguments.flag("strict", strict),
    )
    call = Call(
        request,
        arguments.timeout(timeout_seconds),
        None if max_retries is None else arguments.whole("max_retries", max_retries, 0),
    )
    if plain:
        if len(_plain_calls) >= _MOST_PLAIN_CALLS:
            _plain_calls.clear()
        _plain_calls[mode, names, occupy] = call
    return call
