"""A command as a child process.

The child gets the signals that this process gets, and this process ends as the child ended.

The child has the standard streams, the process group and the terminal of this process. So what a user types at the
terminal (Ctrl-C, Ctrl-Z) reaches it anyway, and this process passes on only signals that were sent to it alone.

While the child runs, nothing may raise here: the child would run on unseen, and its exit status would be lost.
"""

from __future__ import annotations

import errno
import os
import selectors
import shutil
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from localconc.cli.errors import NOT_EXECUTABLE, NOT_FOUND, CommandError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from types import FrameType

#: The signals to pass on, as far as the system has them. The first ones also come from the keyboard, to both processes.
_FROM_KEYBOARD = [getattr(signal, name) for name in ("SIGINT", "SIGQUIT", "SIGTSTP") if hasattr(signal, name)]
_OTHERS = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGALRM", "SIGBREAK")
FORWARDED = _FROM_KEYBOARD + [getattr(signal, name) for name in _OTHERS if hasattr(signal, name)]

#: `si_code` of a signal that the kernel sent by itself, as a terminal does (Linux).
_SI_KERNEL = 0x80

#: The child gets the inherited descriptor with a number out of the way of those that scripts use.
_LOWEST_DESCRIPTOR = 100


def check_exists(words: list[str]) -> None:
    """Refuse a command that does not exist, before the wait and not after it."""
    if shutil.which(words[0]) is None and not os.path.exists(words[0]):
        raise _not_started(words, FileNotFoundError())


def run(
    words: list[str],
    descriptor: int | None,
    started: Callable[[int], None],
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Run a command to its end.

    Args:
        words: the command and its arguments.
        descriptor: a descriptor that the command inherits.
        started: called with the command's pid once that runs; its exceptions are ignored.
        environment: the command's environment.

    Returns:
        Its exit status; 128 + n if signal n ended it.

    Raises:
        CommandError: it can't be run (status 126 or 127).
    """
    if sys.platform == "linux" and hasattr(signal, "sigwaitinfo") and hasattr(os, "posix_spawnp"):
        status = _run_waiting_for_signals(words, descriptor, started, environment)
    else:
        status = run_with_handlers(words, descriptor, started, environment)
    return 128 - status if status < 0 and sys.platform != "win32" else status


def _not_started(words: list[str], error: OSError) -> CommandError:
    if isinstance(error, FileNotFoundError):
        return CommandError(f"There is no command {words[0]!r}", NOT_FOUND)
    return CommandError(f"{words[0]!r} can't be run ({error.strerror})", NOT_EXECUTABLE)


def _as_script(words: list[str]) -> list[str]:
    """Return the command line for a file that the system can't run by itself, as shells do it."""
    return ["/bin/sh", shutil.which(words[0]) or words[0], *words[1:]]


# ---- where the system tells the sender of a signal -------------------------------------------------------------------


if sys.platform == "linux":

    def _run_waiting_for_signals(
        words: list[str], descriptor: int | None, started: Callable[[int], None], environment: Mapping[str, str]
    ) -> int:
        watched = {*FORWARDED, signal.SIGCHLD}
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an ignored one would throw the child's exit status away
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, watched)  # none gets lost between here and the loop
        pid = _spawn(words, descriptor, mask, environment)
        with suppress(Exception):
            started(pid)
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            _pass_on(signal.sigwaitinfo(watched), pid)

    def _spawn(
        words: list[str],
        descriptor: int | None,
        mask: set[signal.Signals] | set[int],
        environment: Mapping[str, str],
    ) -> int:
        inherited = None if descriptor is None else _inheritable(descriptor)
        # What Python itself ignores, the command shall not.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        try:
            try:
                return os.posix_spawnp(words[0], words, environment, setsigmask=mask, setsigdef=defaults)
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
                script = _as_script(words)
                return os.posix_spawnp(script[0], script, environment, setsigmask=mask, setsigdef=defaults)
        except OSError as error:
            raise _not_started(words, error) from None
        finally:
            if inherited is not None:
                os.close(inherited)

    def _inheritable(descriptor: int) -> int:
        import fcntl

        try:
            return int(fcntl.fcntl(descriptor, fcntl.F_DUPFD, _LOWEST_DESCRIPTOR))
        except OSError:
            copy = os.dup(descriptor)
            os.set_inheritable(copy, True)
            return copy

    def _pass_on(info: signal.struct_siginfo, pid: int) -> None:
        if info.si_signo == signal.SIGCHLD:
            return
        from_keyboard = info.si_signo in _FROM_KEYBOARD and info.si_code == _SI_KERNEL
        if not from_keyboard and info.si_pid != pid:
            with suppress(OSError):  # it has ended, or belongs to another user, as `sudo` does
                os.kill(pid, info.si_signo)
        if info.si_signo == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)


# ---- elsewhere -------------------------------------------------------------------------------------------------------


def run_with_handlers(
    words: list[str],
    descriptor: int | None,
    started: Callable[[int], None],
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Do the same where the system does not tell the sender of a signal.

    In the foreground, a signal that the keyboard can send counts as sent by the keyboard.
    """
    import subprocess

    process: subprocess.Popen[bytes] | None = None
    bell: _Bell | None = None
    early: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
            return
        if not (number in _FROM_KEYBOARD and _is_in_front()):
            _send(process, number)
        if sys.platform != "win32" and number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)

    before = {number: signal.signal(number, forward) for number in FORWARDED if _may_handle(number)}
    if sys.platform != "win32":  # an ignored one would throw the child's exit status away
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        inherits = () if descriptor is None or sys.platform == "win32" else (descriptor,)
        try:
            bell = None if sys.platform == "win32" else _Bell()  # before there is a child: it needs descriptors
            try:
                process = subprocess.Popen(words, pass_fds=inherits, env=dict(environment))
            except OSError as error:
                if error.errno != errno.ENOEXEC or sys.platform == "win32":
                    raise
                process = subprocess.Popen(_as_script(words), pass_fds=inherits, env=dict(environment))
        except OSError as error:
            raise _not_started(words, error) from None
        with suppress(Exception):
            started(process.pid)
        for number in early:
            _send(process, number)
        while bell is not None and process.poll() is None:
            bell.wait()
        status = process.wait()
        # Windows counts exit codes from 0 to 2^32 - 1, and `sys.exit` there takes a signed number.
        return status - 2**32 if sys.platform == "win32" and status >= 2**31 else status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if bell is not None:
            bell.close()


class _Bell:
    """Waits until a signal comes, at any moment.

    Python runs handlers between two steps of its own. So a signal just before a system call would have to wait for the
    end of that call, if it did not also leave a byte where the call looks for one.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        if sys.platform != "win32":
            os.set_blocking(self._writer, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def wait(self) -> None:
        self._selector.select()
        os.read(self._reader, 4096)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        self._selector.close()
        os.close(self._reader)
        os.close(self._writer)


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(OSError, ValueError):  # it belongs to another user; a signal that Windows can't send
        process.send_signal(number)


def _may_handle(number: int) -> bool:
    return signal.getsignal(number) not in (signal.SIG_IGN, None)


def _is_in_front() -> bool:
    """Tell whether this process is in the foreground of a terminal: its whole group gets the keyboard's signals."""
    if sys.platform == "win32":
        return True
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            return os.tcgetpgrp(descriptor) == os.getpgrp()
    return False
