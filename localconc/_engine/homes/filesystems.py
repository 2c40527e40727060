"""Which filesystems offer what a database needs: file locks that work, memory that processes share.

localconc refuses filesystems that other machines can write to, or that a virtual machine shares with its host: their
locks end at one machine, or do nothing. Most filesystems in user space (FUSE) are of these kinds, and new ones appear
every year, so of these it accepts only the known local ones.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from pathlib import Path
from typing import Final

#: Shared between machines, or between a virtual machine and its host; Windows and macOS just say `remote`.
_NETWORK: Final = """
    9p acfs afpfs afs auristorfs beegfs beegfs_nodev ceph cifs coda curvefs cvfs cxfs davfs davfs2 drvfs fakeowner fhgfs
    gfs gfs2 glusterfs gpfs grpcfuse juicefs lustre mvfs ncp ncpfs nfs nfs3 nfs4 ocfs2 orangefs osxfs panfs prl_fs pvfs
    pvfs2 remote shfs smb2 smb3 smbfs snfs sshfs vboxsf virtiofs vmhgfs webdav wekafs
"""

#: Filesystems in user space that keep their files on a local disk, or pass everything on to a local filesystem.
_LOCAL_USER_SPACE: Final = """
    apfs bindfs btrfs cryfs dislocker encfs exfat exfat-fuse ext2 ext3 ext4 fuse-ext2 fuse-overlayfs fuse2fs gocryptfs
    hfsfuse lowntfs-3g mergerfs ntfs ntfs-3g overlayfs securefs snapraid unionfs unionfs-fuse veracrypt zfs zfs-fuse
"""

NETWORK_FILESYSTEMS: Final = frozenset(_NETWORK.split())
LOCAL_USER_SPACE_FILESYSTEMS: Final = frozenset(_LOCAL_USER_SPACE.split())

MOUNT_TABLE: Final = "/proc/self/mountinfo"

#: What `GetDriveTypeW` says of a drive or share of another machine (Windows' DRIVE_REMOTE).
_DRIVE_REMOTE: Final = 4

#: macOS' `struct statfs` (sys/mount.h), with inodes of 64 bits: its size, its flags, the name of the type.
_STATFS_BYTES: Final = 2168
_FLAGS_AT: Final = 64
_TYPE_AT: Final = 72
_TYPE_BYTES: Final = 16
_MNT_LOCAL: Final = 0x1000

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def is_network_filesystem(kind: str) -> bool:
    """Return whether file locks on a filesystem of this type, as the kernel names it, can't be trusted.

    >>> is_network_filesystem("nfs4"), is_network_filesystem("fuse.gcsfuse"), is_network_filesystem("ext4")
    (True, True, False)
    """
    base, _, subtype = kind.partition(".")
    if base == "fuse":
        return subtype not in LOCAL_USER_SPACE_FILESYSTEMS
    return base in NETWORK_FILESYSTEMS  # `fuseblk` has a local disk beneath


def filesystem_type(directory: Path) -> str:
    """Return the type of the filesystem that holds the directory, as the kernel names it; "" if it can't be told."""
    if sys.platform == "win32":
        return _type_on_windows(directory)
    if sys.platform == "darwin":
        return type_in(_statfs_of_macos(directory))
    return _type_in_mount_table(directory)


def _type_on_windows(directory: Path) -> str:
    if sys.platform != "win32":
        return ""
    import ctypes

    drive = os.path.splitdrive(os.path.realpath(directory))[0]  # of a mapped drive, the share that it stands for
    return "remote" if ctypes.windll.kernel32.GetDriveTypeW(f"{drive}\\") == _DRIVE_REMOTE else ""


def _statfs_of_macos(directory: Path) -> bytes:
    """Return what the kernel says of the filesystem at a path; empty if it says nothing."""
    if sys.platform == "win32":
        return b""
    import ctypes

    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    library = ctypes.CDLL(None, use_errno=True)
    try:  # on Intel, the plain name is that of an older structure
        statfs = getattr(library, "statfs$INODE64" if os.uname().machine == "x86_64" else "statfs")
    except AttributeError:
        return b""
    return buffer.raw if statfs(os.fsencode(directory), buffer) == 0 else b""


def type_in(statfs: bytes) -> str:
    """Return the type in a `struct statfs` of macOS; `remote.TYPE` if the kernel does not call it local."""
    if not statfs:
        return ""
    kind = statfs[_TYPE_AT : _TYPE_AT + _TYPE_BYTES].partition(b"\0")[0].decode("ascii", "replace")
    is_local = struct.unpack_from("=I", statfs, _FLAGS_AT)[0] & _MNT_LOCAL
    return kind if is_local else f"remote.{kind}"


def _type_in_mount_table(directory: Path) -> str:
    try:
        with open(MOUNT_TABLE, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            mounts = file.read().split("\n")  # a mount point may contain what else ends a line
    except OSError:
        return ""
    resolved = os.path.realpath(directory).rstrip("/") + "/"
    innermost, innermost_type = "", ""
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, described = before.split(" "), after.split(" ")
        if len(fields) < 5 or not described[0]:
            continue
        mount_point = unescaped(fields[4]).rstrip("/") + "/"
        if resolved.startswith(mount_point) and len(mount_point) >= len(innermost):
            innermost, innermost_type = mount_point, unescaped(described[0])
    return innermost_type


def unescaped(text: str) -> str:
    """Return a text of the kernel's tables with its octal escapes (of spaces, tabs, newlines, backslashes) resolved."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
