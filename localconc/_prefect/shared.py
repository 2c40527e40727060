"""All that this room takes from the machine's engine: checked calls, what people see, and events."""

from localconc._engine.calls import Call
from localconc._engine.event import Event
from localconc._engine.model import RATE_LIMIT, Request
from localconc._engine.subscribers import ACQUIRED, RELEASED, subscribers
from localconc._engine.views import Holder, Limit, Waiter, moment

__all__ = [
    "ACQUIRED",
    "RATE_LIMIT",
    "RELEASED",
    "Call",
    "Event",
    "Holder",
    "Limit",
    "Request",
    "Waiter",
    "moment",
    "subscribers",
]
