"""Named concurrency limits and rate limits for one machine, with no server.

    >>> from localconc.sync import concurrency, rate_limit
    >>> with concurrency("database", limit=10):
    ...     query()

`localconc.sync` and `localconc.asyncio` limit code; this package declares and reads limits.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from localconc.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    DeadlockError,
    LimitExistsError,
    LimitNotFoundError,
    LocalconcError,
    NotSupportedError,
    StoreError,
)

if TYPE_CHECKING:
    from typing import Any

    from localconc.limits import (
        Acquisition,
        Holder,
        Limit,
        Percentiles,
        Statistics,
        Waiter,
        create_limit,
        delete_limit,
        ensure_limit,
        home,
        pause_limit,
        read_history,
        read_holders,
        read_limit,
        read_limits,
        read_statistics,
        read_waiters,
        resume_limit,
        update_limit,
    )

__version__ = "0.2.0"

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "Acquisition",
    "ConcurrencySlotAcquisitionError",
    "DeadlockError",
    "Holder",
    "Limit",
    "LimitExistsError",
    "LimitNotFoundError",
    "LocalconcError",
    "NotSupportedError",
    "Percentiles",
    "Statistics",
    "StoreError",
    "Waiter",
    "create_limit",
    "delete_limit",
    "ensure_limit",
    "home",
    "pause_limit",
    "read_history",
    "read_holders",
    "read_limit",
    "read_limits",
    "read_statistics",
    "read_waiters",
    "resume_limit",
    "update_limit",
]


#: The calls of `sync` and `asyncio`, which users may look for here.
_CALLS = ("acquire", "concurrency", "rate_limit")

_SUBMODULES = ("asyncio", "errors", "events", "limits", "sync", "testing")


def __getattr__(name: str) -> Any:
    """Load `localconc.limits` at the first use of one of its names: code that does not need it starts faster."""
    if name in _SUBMODULES:
        from importlib import import_module

        return import_module(f"localconc.{name}")
    if name in _CALLS:
        message = (
            f"localconc has no {name!r} of its own: import it from localconc.sync (threads and processes) or "
            "localconc.asyncio (tasks)"
        )
        # An import statement puts words of its own in the place of an AttributeError's.
        is_import = sys._getframe(1).f_code.co_name == "_handle_fromlist"
        raise ImportError(message, name=__name__) if is_import else AttributeError(message)
    if name not in __all__:
        raise AttributeError(f"module 'localconc' has no attribute {name!r}")
    from localconc import limits

    globals()[name] = found = getattr(limits, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
