"""Programs that end with their test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.programs import Cast, cast


@pytest.fixture
def programs() -> Iterator[Cast]:
    """Starts programs; whoever still lives at the end of the test is killed."""
    with cast() as started:
        yield started
