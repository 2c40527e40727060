"""Reading the environment variables that every call depends on, in a twentieth of the time that `os.environ` takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable


def look_up(name: str) -> tuple[Callable[[Any], Any], Any]:
    """Return a function that looks up a raw value (str or bytes) in the present `os.environ`, and the key to pass."""
    variables = getattr(os.environ, "_data", None)
    encode = getattr(os.environ, "encodekey", None)
    if not isinstance(variables, dict) or encode is None:
        return os.environ.get, name
    return variables.get, encode(name)


def reader(name: str) -> Callable[[], Any]:
    """Return a function that reads the raw value (str or bytes) of one variable; it returns None if that is unset.

    It reads the dictionary inside `os.environ`. If a program has replaced `os.environ` (as `mock.patch` does), it reads
    the replacement.
    """
    environ = os.environ
    get, key = look_up(name)

    def read() -> Any:
        return get(key) if os.environ is environ else os.environ.get(name)

    return read


def is_on(value: Any) -> bool:
    """Return whether the value of a variable switches something on. An empty value and `0` do not."""
    return value is not None and value not in ("", "0", b"", b"0")


#: The variable that switches all limits off, for tests; an empty value or `0` leaves them on.
DISABLED: Final = "LOCALCONC_DISABLED"

_disabled = reader(DISABLED)


def is_disabled() -> bool:
    """Return whether limits are switched off. It is quickest for a variable that is unset, as it mostly is."""
    value = _disabled()
    return value is not None and is_on(value)
