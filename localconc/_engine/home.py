"""The directory where the database lives: which one, whether it can be trusted, and who may read it."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

import platformdirs

from localconc.errors import NotSupportedError, StoreError

DATABASE_NAME = "localconc.db"
GATE_NAME = "gate.lock"
JOURNAL_NAME = "definitions.jsonl"
OWNERS_NAME = "owners"

#: Where file locks and shared memory are not dependable between machines, or at all.
NETWORK_FILESYSTEMS = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.ceph",
        "fuse.davfs2",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
        "virtiofs",
        "vboxsf",
    ]
)


#: The value of `LOCALCONC_HOME` with which a Prefect server keeps the limits.
SERVER = "prefect:"


def is_on_a_server() -> bool:
    """Whether the environment says that a Prefect server keeps the limits."""
    return os.environ.get("LOCALCONC_HOME") == SERVER


def home() -> Path:
    """The directory of the database, read anew from the environment at each call.

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
    configured = os.environ.get("LOCALCONC_HOME")
    if configured == SERVER:
        raise NotSupportedError(
            "LOCALCONC_HOME=prefect: names a Prefect server, which has no home directory; `localconc path` shows its "
            "address."
        )
    if configured:
        try:
            return Path(configured).expanduser().absolute()
        except (RuntimeError, OSError) as error:  # no such user; or a working directory that is gone
            raise StoreError(
                f"LOCALCONC_HOME is {configured!r}, which can't be followed ({error}): set it to an absolute path."
            ) from error
    return user_home()


def user_home() -> Path:
    """The directory where the user's limits are if the environment names none."""
    return platformdirs.user_data_path("localconc")


def prepare(directory: Path) -> None:
    """Create the home, private, where it is missing; refuse one that can't hold a trustworthy database.

    Raises:
        StoreError: it is on a network filesystem, is no directory, or can't be created.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / OWNERS_NAME).mkdir(mode=directory_mode(directory), exist_ok=True)
        if is_group_shared(directory):
            _open_to_group(directory / OWNERS_NAME)
    except FileExistsError:
        raise StoreError(
            f"The home {directory} is not a directory: move that file away, or set LOCALCONC_HOME to a directory."
        ) from None
    except PermissionError as error:
        if os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK):
            raise StoreError(
                f"The home {directory} is not open to you: change its owner or mode, or set LOCALCONC_HOME to another "
                "directory."
            ) from error
        if not os.path.isdir(directory / OWNERS_NAME):  # which, other than the same of a Path, never raises
            raise _cannot_create(directory, error) from error
    except OSError as error:
        raise _cannot_create(directory, error) from error
    if os.path.islink(directory / OWNERS_NAME):
        raise StoreError(
            f"The directory {directory / OWNERS_NAME} is a symbolic link, which localconc does not follow: remove it."
        )
    filesystem = filesystem_type(directory)
    if filesystem in NETWORK_FILESYSTEMS:
        raise StoreError(
            f"The home {directory} is on a network filesystem ({filesystem}), where file locks can't be trusted: "
            "set LOCALCONC_HOME to a directory on a local disk."
        )


def _cannot_create(directory: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The home {directory} can't be created ({error.strerror}): make its parent writable and leave some space, "
        "or set LOCALCONC_HOME to a directory that you can write."
    )


def is_group_shared(directory: Path) -> bool:
    """Whether the user opened the home to a group on purpose."""
    return sys.platform != "win32" and bool(directory.stat().st_mode & stat.S_IWGRP)


def directory_mode(directory: Path) -> int:
    """The mode of directories inside the home: private, unless the home is group-shared."""
    return 0o2770 if is_group_shared(directory) else 0o700


def file_mode(directory: Path) -> int:
    """The mode of files inside the home: private, unless the home is group-shared."""
    return 0o660 if is_group_shared(directory) else 0o600


def _open_to_group(directory: Path) -> None:
    """Let the group of a shared home use a directory in it, if that is ours and no symbolic link."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with suppress(OSError):  # of a group that this user is not in
                os.fchown(descriptor, -1, directory.parent.stat().st_gid)
            os.fchmod(descriptor, directory_mode(directory.parent))
        finally:
            os.close(descriptor)


def give_to_group(path: Path) -> None:
    """Let a file that SQLite made belong to the group of its shared home, if that is ours and no symbolic link.

    By its path: to open and close it would take away SQLite's own locks on it.
    """
    with suppress(OSError):
        os.chown(path, -1, path.parent.stat().st_gid, follow_symlinks=False)


def create_file(path: Path, mode: int) -> int:
    """Create a file that did not exist and open it for writing, with exactly this mode whatever the umask.

    Raises:
        FileExistsError: something, be it a symbolic link, is there already.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags, mode & 0o700)
    if hasattr(os, "fchmod"):
        if mode & stat.S_IWGRP:
            with suppress(OSError):  # of a group that this user is not in
                os.fchown(descriptor, -1, path.parent.stat().st_gid)
        os.fchmod(descriptor, mode)
    return descriptor


def open_or_create_file(path: Path, mode: int) -> int:
    """Open a file of the home for reading and writing, without following a symbolic link; create it if missing."""
    while True:
        try:
            return create_file(path, mode)
        except FileExistsError:
            pass
        try:
            return os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            continue


def filesystem_type(directory: Path) -> str:
    """The type of the filesystem that holds the directory, as the kernel names it; empty where it can't be told."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    resolved = f"{directory.resolve()}/"
    innermost, innermost_type = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount_point = before.split()[4].replace("\\040", " ").rstrip("/") + "/"
        if resolved.startswith(mount_point) and len(mount_point) >= len(innermost):
            innermost, innermost_type = mount_point, after.split()[0]
    return innermost_type
