"""What the README shows, runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)

#: What a reader's own program would define.
STAGE = "def query(): pass\ndef call_the_api(): pass\n"


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_each_snippet_runs(number: int, tmp_path: Path) -> None:
    snippet = SNIPPETS[number]
    if "def test_" in snippet:
        (tmp_path / "test_snippet.py").write_text(snippet, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_snippet.py")]
    else:
        command = [sys.executable, "-c", STAGE + snippet]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_two_commands_are_one_line_each_and_set_themselves_up() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("examples/quickstart.py")
    assert commands[1].endswith("-m pytest")


@pytest.mark.parametrize("name", ["quickstart", "killed_worker", "polite_client", "gpu_pool", "downloads"])
def test_each_example_runs_and_shows_what_it_promises(name: str) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    promised = {
        "quickstart": r"at the same time, at most : 3 of 3 allowed",
        "killed_worker": r"slots still held: 0",
        "polite_client": r"(?s)a second, after the burst: (39|4\d)\.\d(.*requests in these [\d.]+ s: 0\n){2}",
        "gpu_pool": r"at most: 4 of 4 allowed\n  times that a device was shared: 0",
        "downloads": r"at most: 3 of 3 allowed\n  slots still held         : 0",
    }
    assert re.search(promised[name], result.stdout), result.stdout
