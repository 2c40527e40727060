"""The switch that turns all limits off, for tests: one light place, as a plug-in asks for it in every run."""

from __future__ import annotations

import os
from typing import Final

DISABLED: Final = "LOCALCONC_DISABLED"


def is_disabled() -> bool:
    """Whether the environment switches all limits off; empty, or `0`, is on."""
    return os.environ.get(DISABLED, "") not in ("", "0")
