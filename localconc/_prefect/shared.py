"""All that this package takes from the machine's engine: checked calls, grants, what people see, events."""

from localconc._engine.core.calls import RATE_LIMIT, Call, Request
from localconc._engine.core.display import moment
from localconc._engine.core.records import Grant, LimitRef
from localconc._engine.core.views import Event, Holder, Limit, Waiter
from localconc._engine.events import ACQUIRED, RELEASED, publish, subscribers

__all__ = [
    "ACQUIRED",
    "RATE_LIMIT",
    "RELEASED",
    "Call",
    "Event",
    "Grant",
    "Holder",
    "Limit",
    "LimitRef",
    "Request",
    "Waiter",
    "moment",
    "publish",
    "subscribers",
]
