"""The sockets on which datagrams with wakeups are sent or received."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from localconc._engine.homes.files import is_same
from localconc._engine.homes.home import OWNERS_NAME, file_mode, is_group_shared

if TYPE_CHECKING:
    import socket
    from pathlib import Path

#: The longest path that the address of a socket can hold everywhere.
MAX_PATH_BYTES: Final = 100


def bind(opened: socket.socket, directory: Path, address: str) -> bytes:
    """Give a socket its file in the home, open to those who may use the home; return the path to send to."""
    owners = os.fsencode(directory / OWNERS_NAME)
    name = address.encode()
    path = owners + b"/" + name
    if len(path) <= MAX_PATH_BYTES:
        _bind_to_path(opened, path)
    elif sys.platform != "linux":
        raise OSError(errno.ENAMETOOLONG, "the home's path is too long for the address of a socket")
    else:
        descriptor = os.open(owners, os.O_RDONLY | os.O_DIRECTORY)
        try:  # a short name for a directory, which only Linux has
            _bind_to_path(opened, b"/proc/self/fd/%d/" % descriptor + name)
        finally:
            os.close(descriptor)
    _open_to_users(path, directory)
    return path


def _bind_to_path(opened: socket.socket, path: bytes) -> None:
    try:
        opened.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        os.unlink(path)  # left by an earlier mailbox of this process
        opened.bind(path)


def _open_to_users(path: bytes, directory: Path) -> None:
    """Let those send to a mailbox who may use the home, and let its file belong to the owner of the home.

    It changes what it has opened, not what the path may have become in a directory that others can write.
    """
    if sys.platform != "linux":  # no change of owner: the path may be another file of root's by now
        with suppress(OSError, NotImplementedError):
            os.chmod(path, file_mode(directory), follow_symlinks=False)
        return
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        found, owner = os.fstat(descriptor), os.stat(directory)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            return
        link = f"/proc/self/fd/{descriptor}"
        if is_group_shared(directory):
            with suppress(OSError):  # of a group that this user is not in
                os.chown(link, -1, owner.st_gid)
        os.chmod(link, file_mode(directory))
        if found.st_uid == 0 and owner.st_uid != 0:
            os.chown(link, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)


def new_socket() -> socket.socket:
    """Return a socket for datagrams within this machine, which never blocks.

    Raises:
        OSError, AttributeError: there are none here, or no descriptors are left.
    """
    if sys.platform == "win32":
        raise OSError("Python has no such sockets on Windows")
    import socket

    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def load() -> None:
    """Load what sockets need, before a transaction in which all others would wait for it."""
    import socket  # noqa: F401


def send_to_opened(sender: socket.socket, datagram: bytes, path: bytes) -> None:
    """Send to a socket whose path is too long for an address, or may be a link; only Linux can do so.

    Raises:
        OSError, AttributeError: there is no such socket, or no way to send to it.
    """
    if sys.platform != "linux":
        raise OSError("only Linux reaches a socket by a descriptor")
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        sender.sendto(datagram, b"/proc/self/fd/%d" % descriptor)
    finally:
        os.close(descriptor)


def close_socket(opened: socket.socket, identity: tuple[int, int]) -> None:
    """Close a socket, unless somebody has closed it already and its number is another file's by now."""
    if is_same(opened.fileno(), identity):
        opened.close()
    else:
        opened.detach()
