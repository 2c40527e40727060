"""A home of its own for each of these tests, and engines that do not outlive it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from localconc._engine import registry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home that this test uses; it does not exist yet."""
    directory = tmp_path / "home"
    monkeypatch.setenv("LOCALCONC_HOME", str(directory))
    yield directory
    registry.forget_all()


@pytest.fixture
def reachable_home_directory(home_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of a test of several users: each pytest that starts closes the place of `tmp_path` to other users."""
    place = Path(tempfile.mkdtemp(prefix="users-"))
    place.chmod(0o755)
    monkeypatch.setenv("LOCALCONC_HOME", str(place / "home"))
    yield place / "home"
    registry.forget_all()
    shutil.rmtree(place, ignore_errors=True)
