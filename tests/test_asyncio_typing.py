"""What type checkers see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKED = Path(__file__).parent / "typing" / "check_asyncio.py"


@pytest.mark.sweep
def test_the_face_for_tasks_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    options = ["--strict", "--warn-unused-ignores", "--config-file=", "--cache-dir", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(CHECKED)],
        cwd=tmp_path,  # not the checkout's: localconc is found as an installed package, whose own lines are not checked
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout + run.stderr
