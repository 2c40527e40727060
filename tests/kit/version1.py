"""Version 1: a store that it made, and the engine of that release, to run as a process beside this version's."""

from __future__ import annotations

import atexit
import compileall
import os
import shutil
import sqlite3
import sys
import tempfile
from functools import cache
from pathlib import Path

STORES = Path(__file__).parent.parent / "stores" / "version1"

#: What the limits of the store say, without the placeholder: slots, enforced or not, decay.
DEFINITIONS = {
    "api": (10, True, 0.5),
    "database": (5, True, 0.0),
    "gpu": (1, True, 0.0),
    "idle": (3, False, 0.0),
    "naïve name": (7, True, 0.0),
}

#: How many acquisitions its history has that had ended.
PAST_ACQUISITIONS = 18


def make_home(home: Path) -> Path:
    """Make a home of version 1, of this boot of this machine."""
    (home / "owners").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    shutil.copyfile(STORES / "in_use.db", home / "localconc.db")
    shutil.copyfile(STORES / "definitions.jsonl", home / "definitions.jsonl")
    with sqlite3.connect(home / "localconc.db") as store:
        boot = Path("/proc/sys/kernel/random/boot_id")
        identity = boot.read_text().strip() if boot.exists() else ""
        store.execute("UPDATE meta SET value = ? WHERE key = 'boot_identity'", (identity,))
    store.close()
    return home


def version_of(home: Path) -> int:
    """Return the version of a home's store."""
    store = sqlite3.connect(home / "localconc.db")
    try:
        return int(store.execute("PRAGMA user_version").fetchone()[0])
    finally:
        store.close()


def environment() -> dict[str, str]:
    """Return the environment of a process that runs version 1."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(_package()), *sys.path]))}


@cache
def _package() -> Path:
    """Unpack and compile version 1 once: its processes would compile it at each start."""
    directory = Path(tempfile.mkdtemp(prefix="localconc-0.1.0-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    shutil.unpack_archive(STORES / "localconc-0.1.0.zip", directory)
    compileall.compile_dir(directory, quiet=1)
    return directory
