"""The lock under which one process at a time creates, replaces or checkpoints the database of a home."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import lock_descriptor, unlock_descriptor

from localconc._engine.core.errors import Busy, explained, remedy_for, shown
from localconc._engine.homes.files import open_or_create_file
from localconc._engine.homes.home import MAINTENANCE_LOCK_NAME, file_mode
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def maintenance_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a home during a block.

    Raises:
        Busy: another process holds it.
        StoreError: its file can't be opened or locked.
    """
    path = directory / MAINTENANCE_LOCK_NAME
    try:
        descriptor = open_or_create_file(path, file_mode(directory))
    except OSError as error:
        otherwise = "make the directory writable, or set LOCALCONC_HOME to another directory"
        raise StoreError(
            f"The file {shown(path)} can't be opened ({error.strerror}): {remedy_for(error, otherwise)}."
        ) from error
    try:
        try:
            is_mine = lock_descriptor(descriptor, blocking=False)
        except OSError as error:
            raise explained(error, path) from error
        if not is_mine:
            raise Busy
        yield
        unlock_descriptor(descriptor)
    finally:
        os.close(descriptor)
