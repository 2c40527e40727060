"""A thread that uses the database while it is inside it already: in a signal handler or a finalizer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from localconc._engine.core.errors import shown
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType
    from typing import Any


def is_interrupted(instance: object, method: Callable[..., Any]) -> bool:
    """Return whether this thread is inside a method of an object, further down its stack.

    A lock can't tell: this very thread holds it, and may take it again.
    """
    code = method.__code__
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code is code and frame.f_locals.get("self") is instance:
            return True
        frame = frame.f_back
    return False


def used_from_handler(path: Path, what: str) -> StoreError:
    """Return the error for a handler that used the database.

    Args:
        what: what the handler interrupted.
    """
    return StoreError(
        f"A signal handler or finalizer used the database {shown(path)} while it interrupted {what}: set a flag in the "
        "handler, and use limits outside it."
    )
