"""Files of a home: created with exact modes, opened without following links, read at a place, looked at for locks."""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from localconc._engine.core.errors import shown
from localconc._locks import new_lock
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)

#: Lower numbers are the standard streams: a daemoniser closes them, and commands inherit them.
_LOWEST_DESCRIPTOR: Final = 3

#: How often, and how long apart, a lock is looked at where a look takes the lock for a moment.
_MAX_LOOKS: Final = 10
_LOOK_AGAIN_SECONDS: Final = 0.002


# ---- creating --------------------------------------------------------------------------------------------------------


def create_file(path: Path, mode: int) -> int:
    """Create a file that did not exist and open it for writing, with exactly this mode whatever the umask.

    If root creates a file in the directory of another user, it gives the file to that user, who could not open it else.

    Raises:
        FileExistsError: something is there already, if only a symbolic link.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY, mode & 0o700)
    descriptor = _above_standard_streams(descriptor)
    if sys.platform != "win32":
        parent = os.stat(path.parent)
        give_to_owner(descriptor, parent)
        if mode & stat.S_IWGRP:
            with suppress(OSError):  # of a group that this user is not in
                os.fchown(descriptor, -1, parent.st_gid)
        os.fchmod(descriptor, mode)
    return descriptor


def open_or_create_file(path: Path, mode: int) -> int:
    """Open a file of the home for reading and writing, without following a symbolic link; create it if missing.

    Raises:
        StoreError: another user made the file, and this user may not write it.
    """
    while True:
        try:
            return _above_standard_streams(os.open(path, os.O_RDWR | _NOFOLLOW | _BINARY))
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise not_writable(path, error) from error
        with suppress(FileExistsError):  # another process has just created it
            return create_file(path, mode)


def not_writable(path: Path, error: OSError) -> StoreError:
    """Return the error for a file that this user may not write, with the way out."""
    owner, remedy = "", "make it writable"
    with suppress(OSError):
        uid = os.lstat(path).st_uid
        if sys.platform != "win32" and uid != os.geteuid():
            owner = f", which belongs to {_user_name(uid)}"
            remedy = f"give it to the owner of the home (sudo chown --reference '{shown(path.parent)}' '{shown(path)}')"
    return StoreError(f"The file {shown(path)}{owner} can't be written ({error.strerror}): {remedy}.")


def _user_name(uid: int) -> str:
    if sys.platform == "win32":
        return f"user {uid}"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def make_directory(path: Path, mode: int) -> None:
    """Create a directory and the missing ones above it; those above have the mode that the umask gives.

    The umask takes away what others may do, but never what the owner may, who could not use the directory else. If root
    creates directories in the directory of another user, it gives them to that user.

    Raises:
        FileExistsError: something else is there.
    """
    if os.path.isdir(path):
        return
    if path.parent != path and not os.path.isdir(path.parent):
        make_directory(path.parent, 0o777)
    try:
        if sys.platform == "win32" or os.geteuid() != 0:
            os.mkdir(path, mode)
            _give_owner_access(path, os.lstat(path).st_mode)
        else:
            _make_directory_as_root(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def _make_directory_as_root(path: Path, mode: int) -> None:
    """Create a directory that belongs to the owner of the one above.

    All calls use descriptors. With paths, that owner could redirect the change of ownership to another directory.
    """
    if sys.platform == "win32":
        raise OSError("Windows has no root")
    above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.mkdir(path.name, mode, dir_fd=above)
        made = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            _give_owner_access(made, os.fstat(made).st_mode)
            if os.fstat(made).st_uid == 0:
                give_to_owner(made, os.fstat(above))
        finally:
            os.close(made)
    finally:
        os.close(above)


def _give_owner_access(made: Path | int, mode: int) -> None:
    """Let the owner use a directory that was just made, even if the umask denied that."""
    if sys.platform == "win32" or mode & stat.S_IRWXU == stat.S_IRWXU:
        return
    if isinstance(made, int):
        os.fchmod(made, stat.S_IMODE(mode) | stat.S_IRWXU)
    else:  # its owner can't open it yet
        with suppress(NotImplementedError):  # an old C library can't say that a link in its place is not to be followed
            os.chmod(made, stat.S_IMODE(mode) | stat.S_IRWXU, follow_symlinks=False)


def give_to_owner(descriptor: int, parent: os.stat_result) -> None:
    """Give what root has just created in a directory to the owner of the directory."""
    if sys.platform != "win32" and os.geteuid() == 0 and parent.st_uid != 0:
        with suppress(OSError):  # of a user that this user namespace does not know
            os.fchown(descriptor, parent.st_uid, parent.st_gid)


def _above_standard_streams(descriptor: int) -> int:
    """Return the descriptor, moved out of the way of the standard streams."""
    if descriptor >= _LOWEST_DESCRIPTOR or sys.platform == "win32":
        return descriptor
    import fcntl

    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)
    finally:
        os.close(descriptor)


# ---- reading and writing ---------------------------------------------------------------------------------------------

#: Device and inode of a file. They tell whether another file has taken its path, or the number of its descriptor, over.
Identity = tuple[int, int]


def open_to_read(path: Path) -> int:
    """Open a regular file for reading, without following a symbolic link.

    Raises:
        OSError: it is no regular file, or can't be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW | _BINARY | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(f"{path} is not a regular file")


def is_locked(path: Path) -> bool | None:
    """Return whether some process holds the lock of a file (filelock's); None if it is gone or may not be opened."""
    try:
        descriptor = open_to_read(path)
    except OSError:
        return None
    try:
        return _is_locked_descriptor(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _is_locked_descriptor(descriptor: int) -> bool:
    if sys.platform == "win32":
        from filelock import lock_descriptor

        for _ in range(_MAX_LOOKS):  # others may be looking, too: a lock that stays is the owner's
            if lock_descriptor(descriptor, blocking=False):
                return False
            time.sleep(_LOOK_AGAIN_SECONDS)
        return True
    import fcntl

    try:  # a shared lock: two who look at the same time don't take each other for the owner
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    return False


def identity_of(file: int | str | Path) -> Identity:
    """Return device and inode of a file, by its path or its descriptor.

    Raises:
        OSError: this process sees no such file, or the descriptor is closed.
    """
    found = os.stat(file)
    return found.st_dev, found.st_ino


def identity_or_none(file: int | str | Path) -> Identity | None:
    """Return device and inode of a file; None if this process sees no such file, or the descriptor is closed."""
    try:
        return identity_of(file)
    except OSError:
        return None


def is_same(file: int | str | Path, identity: Identity) -> bool:
    """Return whether a descriptor, or a path, still is the file that was opened: a daemoniser may have closed it."""
    try:  # as `identity_of` does; at each hand-over, and each function costs microseconds after a sleep
        found = os.stat(file)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == identity


def close_same(descriptor: int, identity: Identity) -> None:
    """Close a descriptor, unless another file has taken its number over."""
    if is_same(descriptor, identity):
        with suppress(OSError):
            os.close(descriptor)


if sys.platform != "win32" and hasattr(os, "pwrite"):
    #: Write bytes at a place in a file (descriptor, content, offset), by one system call.
    write_at: Callable[[int, bytes, int], int] = os.pwrite

    #: Read bytes at a place in a file (descriptor, length, offset), by one system call; fewer at its end.
    read_at: Callable[[int, int, int], bytes] = os.pread

else:
    _placing = new_lock()  # threads share the place in a descriptor; a signal handler may come in between

    def write_at(descriptor: int, content: bytes, offset: int) -> int:
        """Write bytes at a place in a file."""
        with _placing:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, content)

    def read_at(descriptor: int, length: int, offset: int) -> bytes:
        """Read bytes at a place in a file; fewer at its end."""
        with _placing:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)


def read_in(path: Path, length: int, offset: int) -> bytes:
    """Read bytes at a place in the file at a path, without following a symbolic link; fewer at its end.

    Raises:
        OSError: it is no regular file, or can't be read.
    """
    descriptor = open_to_read(path)
    try:
        return read_at(descriptor, length, offset)
    finally:
        os.close(descriptor)
