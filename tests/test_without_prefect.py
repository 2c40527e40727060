"""With the setting off, nothing of Prefect is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOADED = "print([name for name in sys.modules if 'prefect' in name or name == 'httpx' or name == 'localconc._keeper'])"


def test_using_this_machine_loads_nothing_of_prefect(localconc_home_directory: Path) -> None:
    use = "import sys, localconc.sync, localconc.asyncio, localconc.limits\nlocalconc.sync.rate_limit('x')"
    ended = subprocess.run([sys.executable, "-c", f"{use}\n{LOADED}"], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_without_prefect_the_setting_is_one_clear_error(localconc_home_directory: Path) -> None:
    use = """
import os, sys
sys.modules["prefect"] = None  # as if it were not installed
os.environ["LOCALCONC_HOME"] = "prefect:"
import localconc
try:
    localconc.read_limits()
except localconc.StoreError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", use], capture_output=True, text=True, check=True)
    assert "pip install 'localconc[prefect]'" in ended.stdout
