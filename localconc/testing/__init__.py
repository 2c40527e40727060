"""What tests of limited code need: homes, clocks, full limits, no limits, no leaks.

    >>> from localconc.testing import temporary_home, virtual_clock
    >>> with temporary_home(), virtual_clock() as clock:
    ...     call_the_api(times=100)
    >>> clock.elapsed
    95.0

Nothing here needs pytest. Its fixtures and markers are in `localconc.pytest_plugin`, which pytest finds by itself.
"""

from localconc.testing.block import Block, disabled
from localconc.testing.clock import VirtualClock, virtual_clock
from localconc.testing.homes import assert_no_leaks, temporary_home
from localconc.testing.prefect import replace_prefect
from localconc.testing.slots import HeldSlots, hold, peak

__all__ = [
    "Block",
    "HeldSlots",
    "VirtualClock",
    "assert_no_leaks",
    "disabled",
    "hold",
    "peak",
    "replace_prefect",
    "temporary_home",
    "virtual_clock",
]
