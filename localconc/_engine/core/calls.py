"""A call of `concurrency` or `rate_limit` with checked arguments, from a thread or a task."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from localconc import _environment as environment
from localconc._engine.core import arguments
from localconc._engine.core.errors import malformed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

Mode = Literal["concurrency", "rate_limit"]

#: A caller releases slots of the first mode; slots of the second drain by themselves.
CONCURRENCY: Final = "concurrency"
RATE_LIMIT: Final = "rate_limit"
_MODES: Final[dict[str, Mode]] = {CONCURRENCY: CONCURRENCY, RATE_LIMIT: RATE_LIMIT}

#: The variable that makes `strict=True` the default of every call.
STRICT: Final = "LOCALCONC_STRICT"
_ENVIRON: Final = os.environ
_look_up, _STRICT_KEY = environment.look_up(STRICT)
_strict_variable = environment.reader(STRICT)

_MAX_REMEMBERED: Final = 1_000


class Request(NamedTuple):
    """What a call asks for. It is complete, so that any process can admit it on behalf of a waiter."""

    names: tuple[str, ...]
    slots: int = 1
    mode: Mode = CONCURRENCY
    create_if_missing: bool = True
    limit: int | None = None
    slot_decay_per_second: float | None = None
    strict: bool = False
    label: str = ""

    def to_text(self) -> str:
        """Return the request as its row keeps it: numbers, then names, with slashes between them.

        No name contains a slash or a `>`, so a label, which may contain any character, follows the first `>`. The text
        is not JSON, because every process that waits would load that (3 ms) in its first transaction.
        """
        names, slots, mode, create, limit, decay, strict, label = self
        text = f"{mode}/{slots}/{int(create)}/{limit}/{decay!r}/{int(strict)}/{'/'.join(names)}"
        return f"{text}>{label}" if label else text

    @classmethod
    def from_text(cls, text: str) -> Request:
        """Return the request as it was before `to_text`.

        Raises:
            StoreError: the text is nothing that localconc wrote.
        """
        return _parsed(text)


@lru_cache(_MAX_REMEMBERED)  # each admission reads the first waiter's request, and many ask for the same
def _parsed(text: str) -> Request:
    try:
        fields, _, label = text.partition(">")
        mode, slots, create, limit, decay, strict, *names = fields.split("/")
        return Request(
            tuple(names),
            int(slots),
            _MODES[mode],
            create == "1",
            None if limit == "None" else int(limit),
            None if decay == "None" else float(decay),
            strict == "1",
            label,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise malformed("A waiting request", text) from error


class Lease(NamedTuple):
    """What a call says about leases, as in Prefect. Only a server's keeper uses it."""

    duration: float | None
    holder: Any
    raise_on_renewal_failure: bool | None


class Call(NamedTuple):
    """What a call asks for, and how long it waits."""

    request: Request
    timeout_seconds: float | None
    max_retries: int | None
    lease: Lease | None = None
    #: Whether the call left `strict` to the environment.
    has_default_strict: bool = False

    def as_of_now(self) -> Call:
        """Return the call with the strictness that the environment asks for now; a decorator keeps a call for long."""
        if not self.has_default_strict or self.request.strict is strict_default():
            return self
        return self._replace(request=self.request._replace(strict=not self.request.strict))


def strict_default() -> bool:
    """Return whether the environment makes calls strict that leave it open."""
    value = _strict_variable()
    return value is not None and environment.is_on(value)


#: Valid calls by their arguments, because the same line of a program runs many times. Only arguments of plain types are
#: looked up: others may be equal without being the same (`1 == True`), can change, or have no hash. The type of a
#: time-out is part of the key, because an error shows 1 and 1.0 as the caller wrote them.
_valid_calls: dict[tuple[Any, ...], Call] = {}
_NUMBER_TYPES: Final = frozenset([int, float, type(None)])


def checked_call(
    mode: Mode,
    names: str | Iterable[str] | None,
    occupy: int,
    timeout_seconds: float | timedelta | None,
    create_if_missing: bool | None,
    max_retries: int | None,
    limit: int | None,
    slot_decay_per_second: float | None,
    strict: bool | None = None,
    label: str | None = None,
    lease_duration: float | None = None,
    holder: Any = None,
    raise_on_lease_renewal_failure: bool | None = None,
) -> Call:
    """Check the arguments of a call, or find that they were checked before.

    Args:
        strict: None for what the environment says (`LOCALCONC_STRICT`).

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it and the value.
    """
    timeout_type = type(timeout_seconds)
    key: tuple[Any, ...] | None = None
    if (
        create_if_missing is True
        and max_retries is lease_duration is holder is raise_on_lease_renewal_failure is None
        and (strict is None or strict is False or strict is True)
        and (label is None or type(label) is str)
        and type(names) is str
        and type(occupy) is int
        and (limit is None or type(limit) is int)
        and timeout_type in _NUMBER_TYPES
        and type(slot_decay_per_second) in _NUMBER_TYPES
    ):
        strictness: Any = strict
        if strict is None:
            environ = os.environ
            strictness = _look_up(_STRICT_KEY) if environ is _ENVIRON else environ.get(STRICT)
        key = (names, mode, occupy, limit, slot_decay_per_second, timeout_seconds, timeout_type, strictness, label)
        known = _valid_calls.get(key)
        if known is not None:
            return known
    call = Call(
        _request(mode, names, occupy, create_if_missing, limit, slot_decay_per_second, strict, label),
        arguments.timeout(timeout_seconds),
        None if max_retries is None else arguments.whole("max_retries", max_retries, 0),
        _lease(lease_duration, holder, raise_on_lease_renewal_failure),
        has_default_strict=strict is None,
    )
    if key is not None:
        if len(_valid_calls) >= _MAX_REMEMBERED:
            _valid_calls.clear()
        _valid_calls[key] = call
    return call


def _request(
    mode: Mode, names: Any, occupy: Any, create_if_missing: Any, limit: Any, decay: Any, strict: Any, label: Any
) -> Request:
    return Request(
        names=arguments.limit_names(names),
        slots=arguments.whole("occupy", occupy, 1, arguments.MAX_NUMBER),  # the rules explain why more than fits fails
        mode=mode,
        create_if_missing=arguments.create_if_missing(create_if_missing),
        limit=None if limit is None else arguments.whole("limit", limit, 0),
        slot_decay_per_second=None if decay is None else arguments.decay(decay),
        strict=strict_default() if strict is None else arguments.flag("strict", strict),
        label=arguments.label(label),
    )


def _lease(duration: Any, holder: Any, raises: Any) -> Lease | None:
    if duration is holder is raises is None:
        return None
    raises = None if raises is None else arguments.flag("raise_on_lease_renewal_failure", raises)
    return Lease(arguments.lease_duration(duration), holder, raises)
