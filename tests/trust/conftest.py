"""A home of its own for each of these tests, and engines that do not outlive it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from localconc._engine import registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home that this test uses; it does not exist yet."""
    directory = tmp_path / "home"
    monkeypatch.setenv("LOCALCONC_HOME", str(directory))
    yield directory
    registry.forget_all()
