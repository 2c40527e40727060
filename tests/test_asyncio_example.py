"""The crawler of two processes does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "async_crawler.py"


@pytest.mark.sweep
def test_two_crawlers_together_keep_both_limits() -> None:
    run = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False, timeout=100)
    assert run.returncode == 0, run.stderr
    seconds = [int(count) for count in re.findall(r"^second \d+: +(\d+) requests", run.stdout, re.MULTILINE)]
    assert sum(seconds) == 30
    assert max(seconds) <= 5 + 10, "the burst and a second's rate"
    assert run.stdout.endswith("30 requests, at most 3 at the same time\n")
