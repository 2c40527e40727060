"""How tests use a server: this process, and the processes that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.prefect.server import client_settings

ROOT = Path(__file__).parents[2]


def use_server(monkeypatch: pytest.MonkeyPatch, url: str | None, **settings: Any) -> None:
    """Let Prefect's settings of this process, in all its threads, name this server."""
    from prefect import context
    from prefect import settings as prefect_settings

    updates = {prefect_settings.PREFECT_API_URL: url}
    updates |= {getattr(prefect_settings, name): value for name, value in settings.items()}
    present = context.get_settings_context()
    changed = present.settings.copy_with_update(updates=updates)
    changed = context.SettingsContext(profile=present.profile, settings=changed)
    monkeypatch.setattr(context, "GLOBAL_SETTINGS_CONTEXT", changed)
    monkeypatch.setenv("LOCALCONC_HOME", "prefect:")


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """The environment of a process that uses this server."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**inherited, **client_settings(url, home), "PYTHONPATH": path, **more}


def command(*words: str, url: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `localconc` with this server."""
    return subprocess.run(
        [sys.executable, "-m", "localconc", *words],
        env=environment(url, home, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def script(text: str, *arguments: str, url: str, home: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program that uses this server; it is killed at the end of the block if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        env=environment(url, home, **more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
