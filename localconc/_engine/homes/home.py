"""The directory where the database lives: which one it is, whether it can be trusted, which users may read it."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

import platformdirs

from localconc._engine.core.arguments import printable
from localconc._engine.core.errors import remedy_for, shown
from localconc._engine.homes.files import identity_of, make_directory
from localconc._engine.homes.filesystems import filesystem_type, is_network_filesystem
from localconc.errors import NotSupportedError, StoreError

DATABASE_NAME: Final = "localconc.db"
MAINTENANCE_LOCK_NAME: Final = "gate.lock"
DEFINITIONS_LOG_NAME: Final = "definitions.jsonl"
OWNERS_NAME: Final = "owners"

HOME_VARIABLE: Final = "LOCALCONC_HOME"
_DATA_VARIABLE: Final = "XDG_DATA_HOME"

#: The value of `LOCALCONC_HOME` with which a Prefect server keeps the limits.
SERVER: Final = "prefect:"

#: Where confined programs of the same user find their data, below the user's own directory.
_DATA_OF_CONFINED_PROGRAMS: Final = ("snap/*/current/.local/share", "snap/*/common/.local/share", ".var/app/*/data")


# ---- which directory -------------------------------------------------------------------------------------------------


def is_on_server() -> bool:
    """Return whether the environment says that a Prefect server keeps the limits."""
    return os.environ.get(HOME_VARIABLE) == SERVER


def home() -> Path:
    """Return the directory of the database, read anew from the environment at each call.

    >>> import os; os.environ["LOCALCONC_HOME"] = "/tmp/limits"
    >>> home()
    PosixPath('/tmp/limits')

    Returns:
        `$LOCALCONC_HOME` (a leading `~` is expanded, a relative path counts from the working directory), else
        `platformdirs.user_data_path("localconc")`. Nothing is created.

    Raises:
        StoreError: it is relative to a directory, or to a user, that does not exist.
        NotSupportedError: a server keeps the limits.
    """
    configured = os.environ.get(HOME_VARIABLE)
    if configured == SERVER:
        raise NotSupportedError(
            "LOCALCONC_HOME=prefect: names a Prefect server, which has no home directory; `localconc path` shows its "
            "address."
        )
    if configured:
        try:
            return Path(configured).expanduser().absolute()
        except (RuntimeError, OSError) as error:  # no such user, or a working directory that is gone
            raise StoreError(
                f"LOCALCONC_HOME is {printable(configured)!r}, which can't be resolved ({error}): set it to an "
                "absolute path."
            ) from error
    return user_home()


def user_home() -> Path:
    """Return the home if `LOCALCONC_HOME` names none.

    Raises:
        StoreError: the user's data directory can't be told.
    """
    try:
        directory = platformdirs.user_data_path("localconc")
    except (RuntimeError, KeyError, OSError) as error:
        raise _no_home(str(error)) from error
    if not directory.is_absolute():
        raise _no_home(f"it would be {shown(directory)!r}, which depends on the working directory")
    if os.environ.get("HOME") == "" and directory.parts[1:2] == (".local",):  # before platformdirs ignored such a HOME
        raise _no_home("HOME is empty")
    return directory


def _no_home(reason: str) -> StoreError:
    return StoreError(
        f"The user's data directory can't be told ({reason}): HOME is not set to an absolute path, or there is no such "
        "user on this machine. Set LOCALCONC_HOME, or HOME, to an absolute path."
    )


def home_source() -> str:
    """Return in words what decides on the home: a variable of the environment, or the user's data directory."""
    if os.environ.get(HOME_VARIABLE):
        return HOME_VARIABLE
    configured = os.environ.get(_DATA_VARIABLE, "").strip()
    with suppress(StoreError):
        if configured and home().is_relative_to(configured):
            return _DATA_VARIABLE
    return "the user's data directory"


def other_homes() -> list[Path]:
    """Return further homes of the same user in which limits are kept: each is a set of limits of its own.

    A program that runs with another environment makes one: in a snap or a flatpak, from cron, or with sudo.
    """
    seen = set()
    with suppress(StoreError, OSError):
        seen.add(identity_of(home()))
    others = []
    for candidate in _usual_homes():
        with suppress(OSError):
            os.lstat(candidate / DATABASE_NAME)
            place = identity_of(candidate)
            if place not in seen:
                seen.add(place)
                others.append(candidate)
    return others


def hint_of_other_homes() -> str:
    """Return a sentence on further homes of the same user, for the end of a message; "" if there is nothing to say."""
    if os.environ.get(HOME_VARIABLE):
        return ""
    with suppress(StoreError):
        return _hint_beside(home())
    return ""


@lru_cache(maxsize=8)
def _hint_beside(directory: Path) -> str:
    others = ", ".join(shown(other) for other in other_homes())
    if not others:
        return ""
    return f"This user has other limits in another home ({others}); these are those of {shown(directory)}."


def _usual_homes() -> list[Path]:
    homes = []
    configured = os.environ.get(_DATA_VARIABLE, "").strip()
    if os.path.isabs(configured):
        homes.append(Path(configured) / "localconc")
    with suppress(RuntimeError, KeyError, OSError):
        homes.append(platformdirs.user_data_path("localconc"))
    for user_directory in _user_directories():
        homes.append(user_directory / ".local" / "share" / "localconc")
        for pattern in _DATA_OF_CONFINED_PROGRAMS:
            with suppress(OSError):
                homes.extend(data / "localconc" for data in sorted(user_directory.glob(pattern)))
    return [each for each in homes if each.is_absolute()]


def _user_directories() -> list[Path]:
    """Return the directory in HOME, and the one in the machine's list of users, which cron and sudo use."""
    directories = {Path(os.environ.get("HOME") or "")}
    if sys.platform != "win32":
        import pwd

        with suppress(KeyError):
            directories.add(Path(pwd.getpwuid(os.getuid()).pw_dir))
    return sorted(directory for directory in directories if directory.is_absolute())


# ---- making it -------------------------------------------------------------------------------------------------------


def prepare(directory: Path) -> None:
    """Create the home, private, if it is missing; refuse one that can't hold a trustworthy database.

    Raises:
        StoreError: it is on a network filesystem, is no directory, or can't be created.
    """
    owners = directory / OWNERS_NAME
    try:
        make_directory(directory, 0o700)
        make_directory(owners, directory_mode(directory))
        if is_group_shared(directory):
            _open_to_group(owners)
    except (FileExistsError, NotADirectoryError):
        if os.path.islink(owners):
            raise _is_link(owners) from None
        if os.path.isdir(directory):
            raise StoreError(f"{shown(owners)} is not a directory: move that file away.") from None
        raise StoreError(
            f"The home {shown(directory)} is not a directory: move that file away, or set LOCALCONC_HOME to a "
            "directory."
        ) from None
    except PermissionError as error:
        if os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK):
            raise StoreError(
                f"You do not have permission to use the home {shown(directory)}: change its owner or mode, or "
                "set LOCALCONC_HOME to another directory."
            ) from error
        raise _cannot_create(directory, error) from error
    except OSError as error:
        raise _cannot_create(directory, error) from error
    if os.path.islink(owners):
        raise _is_link(owners)
    kind = filesystem_type(directory)
    if is_network_filesystem(kind):
        raise StoreError(
            f"The home {shown(directory)} is on a network filesystem ({printable(kind)}), where file locks "
            "can't be trusted: set LOCALCONC_HOME to a directory on a local disk."
        )


def _is_link(owners: Path) -> StoreError:
    return StoreError(f"The directory {shown(owners)} is a symbolic link, which localconc does not follow: remove it.")


def _cannot_create(directory: Path, error: OSError) -> StoreError:
    otherwise = "make its parent writable and free some space, or set LOCALCONC_HOME to a directory that you can write"
    return StoreError(
        f"The home {shown(directory)} can't be created ({error.strerror}): {remedy_for(error, otherwise)}."
    )


# ---- which users may read it -----------------------------------------------------------------------------------------


def is_group_shared(directory: Path) -> bool:
    """Return whether a user opened the home to a group."""
    return sys.platform != "win32" and bool(os.stat(directory).st_mode & stat.S_IWGRP)


def directory_mode(directory: Path) -> int:
    """Return the mode of directories inside the home: private, unless the home is group-shared."""
    return 0o2770 if is_group_shared(directory) else 0o700


def file_mode(directory: Path) -> int:
    """Return the mode of files inside the home: private, unless the home is group-shared."""
    return 0o660 if is_group_shared(directory) else 0o600


def _open_to_group(directory: Path) -> None:
    """Let the group of a shared home use a directory in it, if that is this user's and no symbolic link."""
    if sys.platform == "win32":
        return  # its homes are never group-shared
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with suppress(OSError):  # of a group that this user is not in
                os.fchown(descriptor, -1, os.stat(directory.parent).st_gid)
            os.fchmod(descriptor, directory_mode(directory.parent))
        finally:
            os.close(descriptor)


def give_to_group(path: Path) -> None:
    """Give a file that SQLite made to the group of its shared home, if this user owns it and it is no symbolic link.

    This uses the path, because a process that opens and closes the file drops SQLite's own locks on it.
    """
    if sys.platform == "win32":
        return  # its homes are never group-shared
    with suppress(OSError):
        os.chown(path, -1, os.stat(path.parent).st_gid, follow_symlinks=False)
