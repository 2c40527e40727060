"""Named concurrency limits and rate limits for one machine, with no server.

    >>> from localconc.sync import concurrency, rate_limit
    >>> with concurrency("database", limit=10):
    ...     query()

`localconc.sync` and `localconc.asyncio` limit code; this package declares and reads limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    LimitExistsError,
    LimitNotFoundError,
    LocalconcError,
    NotSupportedError,
    StoreError,
)

if TYPE_CHECKING:
    from typing import Any

    from localconc.limits import (
        Holder,
        Limit,
        Waiter,
        create_limit,
        delete_limit,
        ensure_limit,
        home,
        read_holders,
        read_limit,
        read_limits,
        read_waiters,
        update_limit,
    )

__version__ = "0.1.0"

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "Holder",
    "Limit",
    "LimitExistsError",
    "LimitNotFoundError",
    "LocalconcError",
    "NotSupportedError",
    "StoreError",
    "Waiter",
    "create_limit",
    "delete_limit",
    "ensure_limit",
    "home",
    "read_holders",
    "read_limit",
    "read_limits",
    "read_waiters",
    "update_limit",
]


def __getattr__(name: str) -> Any:
    """Load what declares and reads limits when it is first asked for: code that only uses limits starts sooner."""
    if name not in __all__:
        raise AttributeError(f"module 'localconc' has no attribute {name!r}")
    from localconc import limits

    globals()[name] = found = getattr(limits, name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
