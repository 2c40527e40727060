"""What can go wrong, under one base class.

>>> from localconc.errors import LocalconcError, StoreError
>>> issubclass(StoreError, LocalconcError)
True
"""

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "LimitExistsError",
    "LimitNotFoundError",
    "LocalconcError",
    "NotSupportedError",
    "StoreError",
]


class LocalconcError(Exception):
    """The base of every error that localconc raises on purpose (bad arguments are `ValueError` or `TypeError`)."""


class ConcurrencySlotAcquisitionError(LocalconcError):
    """The slots can't be had: more than the limit, no decay, not enforced under `strict`, or out of retries."""


class AcquireConcurrencySlotTimeoutError(LocalconcError, TimeoutError):
    """The slots were not admitted within `timeout_seconds`."""


class LimitNotFoundError(LocalconcError, LookupError):
    """No limit has this name or id."""


class LimitExistsError(LocalconcError, ValueError):
    """A configured limit of this name exists already."""


class StoreError(LocalconcError):
    """The database can't be used; the message says which file, what happened and what to do."""


class NotSupportedError(LocalconcError):
    """The server that keeps the limits can't do this; the message names it and says what to use instead."""
