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
    # Outside the checkout, localconc is found as an installed package, whose own lines are not checked.
    copy = tmp_path / "check_asyncio.py"
    copy.write_text(CHECKED.read_text(encoding="utf-8"), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(copy)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout + run.stderr
