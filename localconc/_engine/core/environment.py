"""Environment variables that every call depends on, read in a twentieth of the time that `os.environ` takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable


def look_up(name: str) -> tuple[Callable[[Any], Any], Any]:
    """Return what looks a variable up in today's `os.environ`, and the key to pass; its value is raw (str or bytes)."""
    variables = getattr(os.environ, "_data", None)
    encode = getattr(os.environ, "encodekey", None)
    if not isinstance(variables, dict) or encode is None:
        return os.environ.get, name
    return variables.get, encode(name)


def reader(name: str) -> Callable[[], Any]:
    """Return a function that reads one variable: a raw value (str or bytes) to compare or to test, None if it is unset.

    It looks into the dictionary inside `os.environ`. If a program has replaced `os.environ` itself (`mock.patch` does),
    the function asks the replacement.
    """
    environ = os.environ
    get, key = look_up(name)

    def read() -> Any:
        return get(key) if os.environ is environ else os.environ.get(name)

    return read


def is_on(value: Any) -> bool:
    """Return whether the value of a variable switches something on: anything but an empty text and `0`."""
    return value is not None and value not in ("", "0", b"", b"0")


#: Switches all limits off, for tests; empty, or `0`, leaves them on.
DISABLED: Final = "LOCALCONC_DISABLED"

_disabled = reader(DISABLED)


def is_disabled() -> bool:
    """Return whether limits are switched off; most often the variable is not set at all, which is seen at once."""
    value = _disabled()
    return value is not None and is_on(value)
