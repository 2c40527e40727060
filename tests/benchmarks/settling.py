"""How long a hand-over waits before it begins, so that both sides are as cold as they are in real work."""

import random
import time

SETTLE_SECONDS = 0.01


def settle_seconds(spread: float = SETTLE_SECONDS) -> float:
    """Return a time in which both fall asleep, and that falls on no fixed point of anybody's polling."""
    return SETTLE_SECONDS + random.uniform(0.0, spread)


def let_both_sleep() -> None:
    """Sleep that long."""
    time.sleep(settle_seconds())
