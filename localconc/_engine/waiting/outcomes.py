"""What a call logs during a long wait, with the errors that end one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from localconc._engine.core.errors import shown
from localconc._engine.homes.home import hint_of_other_homes
from localconc._engine.queue.explain import Reason
from localconc.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    DeadlockError,
    StoreError,
)

if TYPE_CHECKING:
    from localconc._engine.core.calls import Call


logger = logging.getLogger("localconc")


class StoreTimeout(Exception):
    """The store stayed busy until the deadline."""


def report_wait(seconds: float, reason: Reason) -> None:
    """Log what a call has been waiting for."""
    names = ", ".join(map(repr, reason.names))
    logger.info(
        "localconc: waiting for %s for %.0f s: %s", names, seconds, reason.text, extra={"localconc_kind": "waiting"}
    )


def out_of_time(call: Call, reason: Reason) -> AcquireConcurrencySlotTimeoutError:
    """Return the error for a request that was not admitted within its time-out."""
    message = f"Attempt to acquire concurrency slots timed out after {call.timeout_seconds} second(s): {reason.text}"
    hint = hint_of_other_homes()
    error = AcquireConcurrencySlotTimeoutError(f"{message}. {hint}" if hint else message)
    error.names = reason.names
    error._entries = reason.entries
    error.requests_ahead = reason.requests_ahead
    return error


def deadlocked(circle: str) -> DeadlockError:
    """Return the error for a request that would have waited for its own caller."""
    return DeadlockError(
        f"To wait would be to wait for oneself: {circle}. Acquire what belongs together in one call, or pass "
        "timeout_seconds."
    )


def out_of_retries(reason: Reason) -> ConcurrencySlotAcquisitionError:
    """Return the error for a request whose retries are used up."""
    return ConcurrencySlotAcquisitionError(f"No slots became available, and no retries are left: {reason.text}")


def store_timeout(call: Call, path: str) -> Exception:
    """Return the error for a request that could not even use the store in time."""
    held = f"another process held the database {shown(path)} the whole time (is it suspended?)"
    reason = Reason(held, call.request.names)
    return out_of_retries(reason) if call.timeout_seconds is None else out_of_time(call, reason)


def store_held(path: str, seconds: float) -> StoreError:
    """Return the error for an operation that could not use the store in time."""
    return StoreError(
        f"Another process held the database {shown(path)} for {seconds:.0f} seconds. A process may be suspended "
        "inside a localconc call; resume or kill it."
    )
