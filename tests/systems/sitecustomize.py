"""Take from Python what other systems lack, in this process and in each that inherits its environment.

With this directory on PYTHONPATH, Python runs this module before anything else. `LOCALCONC_TEST_SYSTEM` says which
system to be like:

- `macos`: what only Linux has is gone, and `sys.platform` is that of macOS.
- `bare`: so is what only Unix has, as far as tests can do without it: forks, pread, and poll, so mailboxes
  have no sockets.
"""

from __future__ import annotations

import os
import sys

#: Names by module; one that ends with * stands for all that begin so.
_ONLY_LINUX = {
    "os": [
        "pidfd_open",
        "eventfd*",
        "EFD_*",
        "O_PATH",
        "O_TMPFILE",
        "sched_*",
        "posix_spawn*",
        "memfd_create",
        "setns",
        "unshare",
        "splice",
        "copy_file_range",
    ],
    "signal": ["sigwaitinfo", "sigtimedwait", "struct_siginfo", "pidfd_send_signal"],
    "select": ["epoll", "EPOLL*"],
    "time": ["CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW"],
    "fcntl": ["F_OFD_*"],
}
_ONLY_UNIX = {
    "os": ["fork", "forkpty", "register_at_fork", "pread*", "pwrite*", "preadv*", "pwritev*"],
    "signal": ["pthread_sigmask", "sigwait"],
    "select": ["poll", "POLL*"],
}


def _take_away(names_of_modules: dict[str, list[str]]) -> None:
    for module_name, patterns in names_of_modules.items():
        module = __import__(module_name)
        for name in dir(module):
            if any(name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in patterns):
                delattr(module, name)


def _become(system: str) -> None:
    if system not in ("macos", "bare"):
        raise ValueError(f"LOCALCONC_TEST_SYSTEM={system}: macos or bare")
    multiarch = getattr(sys.implementation, "_multiarch", "")
    os.environ["_PYTHON_SYSCONFIGDATA_NAME"] = f"_sysconfigdata_{sys.abiflags}_{sys.platform}_{multiarch}"  # stays
    sys.platform = "darwin"
    if system == "bare":
        _take_away(_ONLY_UNIX)
    _take_away(_ONLY_LINUX)


if os.environ.get("LOCALCONC_TEST_SYSTEM") and sys.platform == "linux":
    _become(os.environ["LOCALCONC_TEST_SYSTEM"])
