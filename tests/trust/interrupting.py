"""Raise KeyboardInterrupt at the n-th bytecode boundary of localconc's own frames."""

from __future__ import annotations

import contextlib
import dis
import sys
import threading
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import localconc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

_PACKAGE = str(Path(localconc.__file__).parent)
_CONTEXTLIB = contextlib.__file__

#: Among the tools that may monitor a program, one that nobody else uses.
TOOL_ID = 4

#: After these the interpreter looks whether a signal has come; after all others it does not.
_CHECKING = ("CALL", "RESUME", "JUMP_BACKWARD")

#: The first and last instructions of a handler: one more exception there would upset the interpreter's own books.
_HALF_WAY = frozenset({"PUSH_EXC_INFO", "POP_EXCEPT"})


class Interruption:
    """One run of an action with an interrupt at a chosen step.

    Args:
        at: the step, from 1; with 0 the steps are only counted.

    Attributes:
        steps: how many boundaries were passed.
        place: where it struck; empty if the action ended before.
        is_real: whether a signal can strike at this place. Tracing reaches more than signals do: the instructions
            that leave a `with` block, for one, where no code of any kind could guard itself.
    """

    def __init__(self, at: int) -> None:
        self.steps = 0
        self.place = ""
        self.is_real = True
        self._at = at
        self._before: dict[FrameType, int] = {}
        self._paused = False

    def __call__(self, action: Callable[[], object]) -> None:
        """Run the action; an interrupt that passes out of it is caught here, and forgotten with its traceback."""
        try:
            with self._watching():
                action()
        except KeyboardInterrupt:
            assert self.place
        finally:
            self._before.clear()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Be called before each instruction of localconc's frames in this thread."""
        if sys.version_info >= (3, 12):
            # Tracing sees only the opcodes of code that ran before it was asked for them: monitoring sees all.
            monitoring, instruction = sys.monitoring, sys.monitoring.events.INSTRUCTION
            monitoring.use_tool_id(TOOL_ID, "interrupts")
            monitoring.register_callback(TOOL_ID, instruction, partial(self._reach, threading.get_ident()))
            monitoring.restart_events()
            monitoring.set_events(TOOL_ID, instruction)
            try:
                yield
            finally:
                monitoring.set_events(TOOL_ID, 0)
                monitoring.free_tool_id(TOOL_ID)
        else:
            before = sys.gettrace()
            sys.settrace(self._enter_frame)
            try:
                yield
            finally:
                sys.settrace(before)

    def _reach(self, thread: int, code: CodeType, offset: int) -> Any:
        if not _is_ours(code.co_filename):
            return sys.monitoring.DISABLE
        if threading.get_ident() == thread and not self._paused:
            self._at_instruction(sys._getframe(1), offset)
        return None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing is interrupted: what others do meanwhile."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _enter_frame(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self._paused or not _is_ours(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            self._before.pop(frame, None)
        if event == "opcode" and not self._paused:
            self._at_instruction(frame, frame.f_lasti)
        return self._step

    def _at_instruction(self, frame: FrameType, offset: int) -> None:
        if self.place or _operations(frame.f_code).get(offset) in _HALF_WAY:
            return  # having struck, hold on to no frame: what the interrupt lost would live on in it
        self.steps += 1
        before = self._before.get(frame)
        self._before[frame] = offset
        if self.steps == self._at:
            self.place = f"{frame.f_code.co_qualname}:{frame.f_lineno}+{offset}"
            self.is_real = _can_strike(frame.f_code, before, offset)
            self._before.clear()
            raise KeyboardInterrupt(self.place)


@cache
def _is_ours(file: str) -> bool:
    return file.startswith(_PACKAGE) or file == _CONTEXTLIB


def _can_strike(code: CodeType, before: int | None, now: int) -> bool:
    """Whether a signal can strike between two instructions, outside the protection that the first stands under."""
    if before is None:
        return True
    if not _operations(code).get(before, "").startswith(_CHECKING):
        return False
    return _protection(code, before) == _protection(code, now)


@cache
def _operations(code: CodeType) -> dict[int, str]:
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}


def _protection(code: CodeType, offset: int) -> int | None:
    """Where an exception raised at an instruction is handled, if in its function at all."""
    entries = dis.Bytecode(code).exception_entries
    return next((entry.target for entry in entries if entry.start <= offset < entry.end), None)
