"""The sockets on which processes send or receive datagrams with wakeups."""

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
    """Give a socket its file in the home, which all users of the home can send to; return the path."""
    owners = os.fsencode(directory / OWNERS_NAME)
    name = address.encode()
    path = owners + b"/" + name
    if len(path) <= MAX_PATH_BYTES:
        _bind_to_path(opened, path)
    elif sys.platform != "linux":
        raise OSError(errno.ENAMETOOLONG, "the home's path is too long for the address of a socket")
    else:
        descriptor = os.open(owners, os.O_RDONLY | os.O_DIRECTORY)
        try:  # Linux has a short name for an open directory
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
        os.unlink(path)  # an earlier mailbox of this process has left it
        opened.bind(path)


def _open_to_users(path: bytes, directory: Path) -> None:
    """Let all users of the home send to a mailbox, and give its file to the owner of the home if root made it.

    This changes the file that it has opened. By the path, another user of a shared directory could redirect it.
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
            with suppress(OSError):  # this user is not in the group
                os.chown(link, -1, owner.st_gid)
        os.chmod(link, file_mode(directory))
        if found.st_uid == 0 and owner.st_uid != 0:
            os.chown(link, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)


def new_socket() -> socket.socket:
    """Return a socket for datagrams within this machine, which never blocks.

    Raises:
        OSError, AttributeError: the system has none, or no descriptors are left.
    """
    if sys.platform == "win32":
        raise OSError("Python has no such sockets on Windows")
    import socket

    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def load() -> None:
    """Load the socket module before a transaction that needs it, because other processes wait for its end."""
    import socket  # noqa: F401


def send_to_opened(sender: socket.socket, datagram: bytes, path: bytes) -> None:
    """Send to a socket whose path is too long for an address, or may be a link. Only Linux can do so.

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
    """Close a socket, unless other code has closed it and another file has taken its number over."""
    if is_same(opened.fileno(), identity):
        opened.close()
    else:
        opened.detach()
