"""What the README shows, runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from localconc.sync import concurrency

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)

#: What a reader's own program would define.
STAGE = "def query(): pass\ndef start_download(on_done): on_done()\n"


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
    assert not result.stderr, "it warns of nothing"


@pytest.mark.skipif(sys.platform == "win32", reason="a script of a Unix shell")
def test_the_script_that_locks_itself_runs_once_at_a_time(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```sh\n(#!.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    command, script = tmp_path / "localconc", tmp_path / "nightly.sh"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m localconc "$@"\n', encoding="utf-8")
    script.write_text(code, encoding="utf-8")
    for program in (command, script):
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60, check=False)

    with concurrency("nightly", limit=1):
        assert run().returncode == 124
    assert run().stdout == "only one of these runs\n"


def test_a_newcomer_can_read_it_in_one_go() -> None:
    assert len(README.splitlines()) <= 220


def test_the_two_commands_are_one_line_each_and_set_themselves_up() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("examples/quickstart.py")
    assert commands[1].endswith("-m pytest -n 4 --dist worksteal")


@pytest.mark.parametrize("name", ["quickstart", "killed_worker", "polite_client", "gpu_pool", "downloads"])
@pytest.mark.sweep
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
