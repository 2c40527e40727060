"""A handler of a signal that strikes before a certain instruction of a function, for tests that try each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

TOOL_ID = 4


class Strike:
    """A handler that is called once.

    Attributes:
        has_come: whether the function had that many instructions.
    """

    def __init__(self, code: CodeType, instruction: int, handler: Callable[[], object]) -> None:
        self._code = code
        self._left = instruction
        self._handler = handler
        self.has_come = False

    def at_instruction(self) -> None:
        """Count one more instruction."""
        if not self.has_come and self._left == 0:
            self.has_come = True
            self._handler()
        self._left -= 1

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Trace the instructions of the function, before Python 3.12."""
        if frame.f_code is not self._code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.at_instruction()
        return self.trace


@contextmanager
def struck(function: Callable[..., Any], instruction: int, handler: Callable[[], object]) -> Iterator[Strike]:
    """Call a handler before an instruction of a function, counted from 0 over all its calls inside.

    The handler may call the function itself, which is not struck again.
    """
    strike = Strike(function.__code__, instruction, handler)
    if sys.version_info >= (3, 12):
        monitoring, event = sys.monitoring, sys.monitoring.events.INSTRUCTION
        monitoring.use_tool_id(TOOL_ID, "strikes")
        monitoring.register_callback(TOOL_ID, event, lambda code, offset: strike.at_instruction())
        monitoring.set_local_events(TOOL_ID, function.__code__, event)
        try:
            yield strike
        finally:
            monitoring.set_local_events(TOOL_ID, function.__code__, 0)
            monitoring.free_tool_id(TOOL_ID)
        return
    before = sys.gettrace()
    sys.settrace(strike.trace)
    try:
        yield strike
    finally:
        sys.settrace(before)
