"""Environment variables that every call depends on, read in a twentieth of the time that `os.environ` takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def reader(name: str) -> Callable[[], Any]:
    """Return a function that reads one variable: a raw value (str or bytes) to compare or to test, None if it is unset.

    It looks into the dictionary inside `os.environ`. If a program has replaced `os.environ` itself (`mock.patch` does),
    the function asks the replacement.
    """
    environ = os.environ
    variables = getattr(environ, "_data", None)
    encode = getattr(environ, "encodekey", None)
    if not isinstance(variables, dict) or encode is None:
        return lambda: os.environ.get(name)
    look_up, key = variables.get, encode(name)

    def read() -> Any:
        return look_up(key) if os.environ is environ else os.environ.get(name)

    return read


def is_on(value: Any) -> bool:
    """Return whether the value of a variable switches something on: anything but an empty text and `0`."""
    return value is not None and value not in ("", "0", b"", b"0")
