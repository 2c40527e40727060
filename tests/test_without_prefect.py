"""With the setting off, nothing of Prefect is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOADED = """
foreign = ("prefect", "httpx", "localconc._prefect", "localconc._keeper")
print([name for name in sys.modules if any(f"{name}.".startswith(f"{each}.") for each in foreign)])
"""


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
    assert "in a clone with `pip install '.[prefect]'`" in ended.stdout


MARKED_TEST = """
import pytest

@pytest.mark.concurrency("database", limit=1)
def test_marked():
    pass
"""


def test_markers_limit_tests_on_this_machine_whoever_keeps_other_limits(tmp_path: Path) -> None:
    (tmp_path / "test_marked.py").write_text(MARKED_TEST)
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "LOCALCONC_HOME": "prefect:",
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    command = [sys.executable, "-m", "pytest", "-p", "localconc.pytest_plugin", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr
