"""Keys that are pressed while a live view is shown."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from localconc.cli.output.screen import Picture

_SCROLLING = {b"j": 1, b"k": -1, b"\x1b[B": 1, b"\x1b[A": -1, b"\x1b[6~": 10, b"\x1b[5~": -10, b" ": 10}


_KEY = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|[\x00-\xff]")


class Keyboard:
    """Reads the terminal's keys one by one, without showing them, inside the block; restores the terminal after it."""

    def __enter__(self) -> Keyboard:
        self._old_handlers = {
            number: signal.signal(number, self._leave)
            for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
        }
        # Ctrl-Z would leave the shell on a screen that is not its own.
        if hasattr(signal, "SIGTSTP"):
            self._old_handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        self._settings = None
        if sys.platform != "win32":
            import termios
            import tty

            self._settings = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._settings is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._settings)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def leaves_within(self, seconds: float, picture: Picture) -> bool:
        """Wait this long, or until a key is pressed; return whether it was the one that leaves. Other keys scroll."""
        for key in _KEY.findall(self._typed(seconds)):
            if key in b"qQ":
                return True
            picture.scroll(_SCROLLING.get(key, 0))
        return False

    def _typed(self, seconds: float) -> bytes:
        if sys.platform == "win32":
            import msvcrt

            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if msvcrt.kbhit():
                    return msvcrt.getch()
                time.sleep(0.02)
            return b""
        if select.select([sys.stdin], [], [], seconds)[0]:
            return os.read(sys.stdin.fileno(), 1024) or b"q"  # nothing to read: the terminal is gone
        return b""
