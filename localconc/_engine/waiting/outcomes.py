"""The errors with which a wait ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine.queue.explain import Reason
from localconc.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError, StoreError

if TYPE_CHECKING:
    from localconc._engine.core.calls import Call


class StoreTimeout(Exception):
    """The store stayed busy until the deadline."""


def out_of_time(call: Call, reason: Reason) -> AcquireConcurrencySlotTimeoutError:
    """Return the error for a request that was not admitted within its time-out."""
    error = AcquireConcurrencySlotTimeoutError(
        f"Attempt to acquire concurrency slots timed out after {call.timeout_seconds} second(s): {reason.text}"
    )
    error.names = reason.names
    error.holders = reason.holders
    error.requests_ahead = reason.requests_ahead
    return error


def out_of_retries(reason: Reason) -> ConcurrencySlotAcquisitionError:
    """Return the error for a request whose retries are used up."""
    return ConcurrencySlotAcquisitionError(f"No slots became available, and no retries are left: {reason.text}")


def refused(call: Call, reason: Reason) -> Exception:
    """Return the error for a request that tries once."""
    return out_of_time(call, reason) if call.timeout_seconds == 0 else out_of_retries(reason)


def store_timeout(call: Call, path: str) -> Exception:
    """Return the error for a request that could not even use the store in time."""
    held = f"another process held the database {path} the whole time (is it suspended?)"
    reason = Reason(held, call.request.names, [], 0)
    return out_of_retries(reason) if call.timeout_seconds is None else out_of_time(call, reason)


def store_held(path: str, seconds: float) -> StoreError:
    """Return the error for an operation that could not use the store in time."""
    return StoreError(
        f"Another process held the database {path} for {seconds:.0f} seconds. A process may be suspended inside a "
        "localconc call; resume or kill it."
    )
