"""The homes of this user, each of which is a set of limits of its own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from localconc.cli.engine_access import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where packages in a sandbox keep what they take for the user's data, below the user's directory.
_SANDBOXES = ("snap/*/current/.local/share", "snap/*/common/.local/share", ".var/app/*/data")


def source() -> str:
    """Name what decides where the home is: a variable of the environment, or the system's custom."""
    for variable in ("LOCALCONC_HOME", "XDG_DATA_HOME"):
        if os.environ.get(variable):
            return variable
    return "the user's data directory"


def others(home: Path) -> list[Path]:
    """Find the other homes in which limits of this user may be; none that this user can't look into."""
    seen = {_identity(home)}
    found = []
    for candidate in _candidates():
        with suppress(OSError):
            if (candidate / DATABASE_NAME).is_file() and _identity(candidate) not in seen:
                seen.add(_identity(candidate))
                found.append(candidate)
    return found


def _identity(directory: Path) -> object:
    try:
        status = directory.stat()
    except OSError:
        return directory
    return status.st_dev, status.st_ino


def _candidates() -> Iterator[Path]:
    yield platformdirs.user_data_path("localconc")
    for directory in _user_directories():
        yield directory / ".local" / "share" / "localconc"
        for pattern in _SANDBOXES:
            for data in sorted(directory.glob(pattern)):
                yield data / "localconc"


def _user_directories() -> Iterator[Path]:
    if os.environ.get("HOME"):
        yield Path(os.environ["HOME"])
    with suppress(ImportError, KeyError, AttributeError):
        import pwd

        yield Path(pwd.getpwuid(os.getuid()).pw_dir)
