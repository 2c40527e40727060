"""The plugin under the oldest pytest that it runs with: pytest 7.0 with pluggy 1.0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localconc.testing import hold, temporary_home

SOURCE = Path(__file__).parent.parent

TESTS = """
import pytest
from localconc.sync import concurrency, rate_limit

kept = []

@pytest.mark.concurrency("database", limit=2)
def test_limited(localconc_slots):
    assert localconc_slots == {"database": (0,)}

@pytest.mark.concurrency("undeclared")
def test_undeclared(): pass

def test_clock(localconc_clock):
    for _ in range(3):
        rate_limit("api", limit=1, slot_decay_per_second=1)
    assert localconc_clock.elapsed == 2

def test_leaky(localconc_home):
    kept.append(concurrency("database", limit=1))
    kept[-1].__enter__()

def test_neither(): pass
"""


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_the_plugin_runs_with_pytest_7(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    wanted = ["pytest==7.0.0", "pluggy==1.0.0", "filelock>=3.30", "pendulum>=3.0", "platformdirs>=4.0"]
    install = subprocess.run(
        [python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False
    )
    if install.returncode != 0:
        pytest.skip(f"pytest 7 can't be installed: {install.stderr[-200:]}")
    tests = tmp_path / "test_it.py"
    tests.write_text(TESTS)
    with temporary_home() as home, hold("database", limit=2):
        run = subprocess.run(
            [python, "-m", "pytest", "-p", "localconc.pytest_plugin", "-rA", f"--localconc-home={home}", tests],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "400"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert "3 passed, 1 failed, 1 error" in run.stdout or "1 failed, 3 passed, 1 error" in run.stdout, run.stdout
    assert "no limit 'undeclared' exists" in run.stdout
    assert "Slots were not given back" in run.stdout
