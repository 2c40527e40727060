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
    lease_duration: float | None = None
    holder: Any = None
    raise_on_lease_renewal_failure: bool | None = None


#: Calls that were found good, by their arguments: the same line of a program runs many times. Only of plain types, for
#: others are equal that are not the same (`1 == True`), or can't be looked up.
_known_calls: dict[tuple[Any, ...], Call] = {}
_MOST_KNOWN_CALLS = 1_000
_NUMBER_TYPES = frozenset([int, float, type(None)])


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
    lease_duration: float | None = None,
    holder: Any = None,
    raise_on_lease_renewal_failure: bool | None = None,
) -> Call:
    """Check the arguments of a call.

    Raises:
        ValueError, TypeError: one is out of range; the message names it and the value.
    """
    timeout_type = type(timeout_seconds)  # an error message shows the time-out as it was given: 1 or 1.0
    is_plain = (
        type(names) is str
        and type(occupy) is int
        and (limit is None or type(limit) is int)
        and max_retries is None
        and timeout_type in _NUMBER_TYPES
        and type(slot_decay_per_second) in _NUMBER_TYPES
        and create_if_missing is True
        and strict is False
        and lease_duration is holder is raise_on_lease_renewal_failure is None
    )
    key = (mode, names, occupy, limit, slot_decay_per_second, timeout_seconds, timeout_type) if is_plain else None
    if key is not None:
        known = _known_calls.get(key)
        if known is not None:
            return known
    request = Request(
        names=arguments.limit_names(names),
        slots=arguments.whole("occupy", occupy, 1, arguments.MOST_NUMBER),  # more than any limit is an answer, too
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
        arguments.lease(lease_duration),
        holder,
        raise_on_lease_renewal_failure,
    )
    if key is not None:
        if len(_known_calls) >= _MOST_KNOWN_CALLS:
            _known_calls.clear()
        _known_calls[key] = call
    return call
