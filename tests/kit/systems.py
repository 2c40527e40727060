"""What the system of this run lacks, for the tests that need it."""

from __future__ import annotations

import os
import select

import pytest

from localconc._engine.liveness import watch

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

needs_sockets = pytest.mark.skipif(not hasattr(select, "poll"), reason="without poll, no mailbox has a socket")

needs_watch = pytest.mark.skipif(not watch.IS_SUPPORTED, reason="the kernel tells nothing of other processes")

needs_process_table = pytest.mark.skipif(
    "LOCALCONC_TEST_SYSTEM" in os.environ,
    reason="the real system tells by libproc whether a process is stopped, or is a zombie; its imitation does not",
)
