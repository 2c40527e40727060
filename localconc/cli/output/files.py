"""Files that a command writes for its user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from localconc.cli.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path


def write_file(path: Path, text: str) -> None:
    """Write a file: whole, or not at all.

    Raises:
        CommandError: it can't be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a device
            return
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{str(path)!r} can't be written ({error.strerror})") from None
    except ValueError as error:  # a name with a null character
        raise CommandError(f"{str(path)!r} can't be written ({error})") from None
