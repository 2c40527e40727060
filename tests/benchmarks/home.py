"""A fresh home for the length of a benchmark, inherited by the processes it starts."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "LOCALCONC_HOME"


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Point this process and its children at an empty directory, and remove it afterwards."""
    before = os.environ.get(VARIABLE)
    with tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True) as directory:
        live_in(Path(directory) / "home")
        try:
            yield Path(directory)
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


def live_in(home: Path) -> None:
    """Use this home from now on."""
    os.environ[VARIABLE] = str(home)
