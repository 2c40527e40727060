"""Which directory is the home, who may use it, and on which filesystems it can be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localconc._engine.homes import files, filesystems, home
from localconc.errors import StoreError

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such owners and modes")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these directories")
as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can become other users")

NOBODY = 65534


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a user without any of the variables that decide on the home, for the list of users, too."""
    directory = tmp_path / "user"
    directory.mkdir()
    for name in ("LOCALCONC_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(directory))
    if sys.platform != "win32":
        import pwd

        entry = pwd.struct_passwd(("user", "x", os.getuid(), os.getgid(), "", str(directory), "/bin/sh"))
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    return directory


def make_store(directory: Path) -> Path:
    home.prepare(directory)
    (directory / home.DATABASE_NAME).touch()
    return directory


# ---- which directory -------------------------------------------------------------------------------------------------


def test_the_home_is_what_the_environment_says(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCONC_HOME", "~/limits")
    assert home.home() == user / "limits"
    assert home.home_source() == "LOCALCONC_HOME"


@linux
def test_without_a_variable_the_home_is_in_the_users_data_directory(user: Path) -> None:
    assert home.home() == user / ".local" / "share" / "localconc"
    assert home.home_source() == "the user's data directory"


@linux
def test_the_variable_of_the_data_directory_is_named_where_it_decides(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(user / "data"))
    assert home.home() == user / "data" / "localconc"
    assert home.home_source() == "XDG_DATA_HOME"


@as_root
def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path) -> None:
    program = """
import os
from localconc._engine.homes.home import home
from localconc.errors import StoreError
home()  # loads what the user that nobody knows may not read
os.setuid(4_000_000)
try:
    print("no error:", home())
except StoreError as error:
    print(error)
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "Set LOCALCONC_HOME, or HOME, to an absolute path" in ran.stdout


@linux
@pytest.mark.parametrize("variable", ["HOME", "XDG_DATA_HOME"])
def test_a_home_that_would_be_relative_is_refused(user: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "somewhere")
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: Path("somewhere") / name)
    with pytest.raises(StoreError, match="Set LOCALCONC_HOME, or HOME, to an absolute path"):
        home.home()


@pytest.mark.parametrize("error", [RuntimeError("Could not determine home directory."), KeyError("uid 7")])
def test_a_data_directory_that_cant_be_told_is_explained(
    user: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(name: str) -> Path:
        raise error

    monkeypatch.setattr("platformdirs.user_data_path", refuse)
    with pytest.raises(StoreError, match="Set LOCALCONC_HOME, or HOME"):
        home.home()
    assert home.other_homes() == []


def test_a_home_of_a_user_that_does_not_exist_is_explained(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCONC_HOME", "~nobody-of-this-name/limits")
    with pytest.raises(StoreError, match="LOCALCONC_HOME is '~nobody-of-this-name/limits'"):
        home.home()


@linux
def test_other_homes_of_the_same_user_are_found(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        make_store(user / ".local/share/localconc"),
        make_store(user / "snap/editor/common/.local/share/localconc"),
        make_store(user / "snap/editor/42/.local/share/localconc"),
        make_store(user / ".var/app/org.editor/data/localconc"),
        make_store(user / "data/localconc"),
    ]
    (user / "snap/editor/current").symlink_to("42")
    (user / ".var/app/org.unused/data/localconc").mkdir(parents=True)
    monkeypatch.setenv("XDG_DATA_HOME", str(user / "data"))
    seen = {os.path.realpath(each) for each in home.other_homes()}
    assert seen == {str(each) for each in found[:-1]}, "but not the home itself"
    monkeypatch.setenv("LOCALCONC_HOME", str(user / "of one's own"))
    assert {os.path.realpath(each) for each in home.other_homes()} == {str(each) for each in found}


@linux
def test_the_home_that_the_list_of_users_names_is_another_one_where_the_environment_differs(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for cron and sudo, which go by that list."""
    made = make_store(user / ".local/share/localconc")
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    assert home.other_homes() == [made]


@linux
def test_a_home_has_no_others_where_there_are_none(user: Path) -> None:
    make_store(home.home())
    assert home.other_homes() == []


# ---- making it -------------------------------------------------------------------------------------------------------


@posix
def test_a_home_is_private(tmp_path: Path) -> None:
    home.prepare(tmp_path / "home")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "home" / "owners").stat().st_mode & 0o777 == 0o700


@pytest.fixture
def strictest_umask() -> Iterator[None]:
    before = os.umask(0o777)
    try:
        yield
    finally:
        os.umask(before)


@posix
@pytest.mark.usefixtures("strictest_umask")
def test_the_owner_can_use_a_home_whatever_the_umask(tmp_path: Path) -> None:
    home.prepare(tmp_path / "above" / "home")
    made = [tmp_path / "above", tmp_path / "above" / "home", tmp_path / "above" / "home" / "owners"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3


@as_root
def test_a_home_that_root_makes_in_a_users_directory_belongs_to_the_user(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    directory = tmp_path / ".local" / "share" / "localconc"
    home.prepare(directory)
    os.close(files.create_file(directory / "file", 0o600))
    made = [tmp_path / ".local", tmp_path / ".local" / "share", directory, directory / "owners", directory / "file"]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(NOBODY, NOBODY)}
    assert directory.stat().st_mode & 0o777 == 0o700


@as_root
def test_a_home_that_root_makes_in_a_directory_of_root_belongs_to_root(tmp_path: Path) -> None:
    home.prepare(tmp_path / "home")
    assert (tmp_path / "home" / "owners").stat().st_uid == 0


@as_root
def test_a_file_of_somebody_else_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "definitions.jsonl"
    path.touch(0o600)
    refusal = files.not_writable(path, PermissionError(13, "Permission denied"))
    assert str(refusal) == f"The file {path} can't be written (Permission denied): make it writable."
    os.chown(path, NOBODY, NOBODY)
    refusal = files.not_writable(path, PermissionError(13, "Permission denied"))
    assert "which belongs to nobody can't be written" in str(refusal)
    assert "sudo chown" in str(refusal)


def test_a_file_in_the_place_of_the_home_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "home"):
        with pytest.raises(StoreError, match="is not a directory"):
            home.prepare(directory)


@posix
def test_a_link_in_the_place_of_the_owners_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "owners").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a symbolic link"):
        home.prepare(tmp_path / "home")


@linux
def test_a_home_whose_path_is_not_unicode_can_be_spoken_of(tmp_path: Path) -> None:
    directory = tmp_path / "caf\udce9"
    directory.touch()
    with pytest.raises(StoreError) as raised:
        home.prepare(directory)
    assert str(raised.value).encode()


def test_a_file_is_created_once_and_then_opened(tmp_path: Path) -> None:
    for _ in range(2):
        os.close(files.open_or_create_file(tmp_path / "file", 0o600))
    with pytest.raises(FileExistsError):
        files.create_file(tmp_path / "file", 0o600)


# ---- filesystems -----------------------------------------------------------------------------------------------------

NETWORK = (
    "nfs nfs4 cifs smb3 9p virtiofs vboxsf ceph lustre gpfs afs fuse.sshfs fuse.vmhgfs-fuse fakeowner fuse.grpcfuse "
    "osxfs fuse.osxfs prl_fs fuse.gcsfuse fuse.juicefs fuse.s3fs fuse.rclone fuse.glusterfs fuse fuse.of-next-year"
)
LOCAL = "ext4 btrfs xfs zfs tmpfs overlay fuseblk fuse.ext4 fuse.ntfs-3g fuse.fuse-overlayfs fuse.gocryptfs apfs f2fs"


@pytest.mark.parametrize("kind", NETWORK.split())
def test_locks_on_these_filesystems_cant_be_trusted(kind: str) -> None:
    assert filesystems.is_network_filesystem(kind)


@pytest.mark.parametrize("kind", ["", *LOCAL.split()])
def test_locks_on_these_filesystems_work(kind: str) -> None:
    assert not filesystems.is_network_filesystem(kind)


def test_a_home_on_a_network_filesystem_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "filesystem_type", lambda directory: "fuse.gcsfuse")
    with pytest.raises(StoreError, match=r"on a network filesystem \(fuse.gcsfuse\)"):
        home.prepare(tmp_path / "home")


@linux
@pytest.mark.parametrize("name", ["plain", "two words", "tab\tand\nline", "back\\slash", "hash#", "caf\udce9", "\\040"])
def test_a_mount_point_is_found_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    escaped = os.fsencode(tmp_path / name)
    for character in b"\\ \t\n#":  # as the kernel does, the backslash first
        escaped = escaped.replace(bytes([character]), b"\\%03o" % character)
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        b"36 22 0:31 / " + escaped + b" rw,nosuid shared:5 master:2 - fuse.sshfs user@host:/ rw\n"
    )
    monkeypatch.setattr(filesystems, "MOUNT_TABLE", str(table))
    (tmp_path / name).mkdir()
    assert filesystems.filesystem_type(tmp_path / name / "home") == "fuse.sshfs"
    assert filesystems.filesystem_type(tmp_path) == "ext4"


def test_without_a_table_of_mounts_the_filesystem_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "MOUNT_TABLE", str(tmp_path / "missing"))
    assert filesystems.filesystem_type(tmp_path) == ""
