"""A program that does what it is told, an order a line: `["enter", ["db"], {"timeout_seconds": 1}]`.

It first says its pid. It answers each order with one line of JSON: "done", what was asked for, or the name of an
error's class and its text.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import localconc
import localconc.sync

_blocks: dict[str, Any] = {}
_outcomes: dict[str, Any] = {}
_scope: dict[str, Any] = {"localconc": localconc, "sync": localconc.sync, "os": os, "blocks": _blocks}


def enter(names: str | list[str], **options: Any) -> str:
    block = localconc.sync.concurrency(names, **options)
    block.__enter__()
    _blocks[str(names)] = block
    return "done"


def leave(names: str | list[str]) -> str:
    _blocks.pop(str(names)).__exit__(None, None, None)
    return "done"


def rate_limit(names: str | list[str], **options: Any) -> str:
    localconc.sync.rate_limit(names, **options)
    return "done"


def evaluate(expression: str) -> Any:
    return eval(expression, _scope)


def run(code: str) -> Any:
    _scope["result"] = "done"
    exec(code, _scope)
    return _scope["result"]


def begin(label: str, order: str, *arguments: Any, **options: Any) -> str:
    """Carry out an order in a thread of its own; `outcome` tells what came of it."""

    def work() -> None:
        _outcomes[label] = carry_out(order, arguments, options)

    _outcomes[label] = None
    threading.Thread(target=work, name=label, daemon=True).start()
    return "done"


def outcome(label: str) -> Any:
    return _outcomes[label]


ORDERS = {function.__name__: function for function in (enter, leave, rate_limit, evaluate, run, begin, outcome)}


def carry_out(order: str, arguments: list[Any] | tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        return ORDERS[order](*arguments, **options)
    except Exception as error:
        return [type(error).__name__, str(error)]


def main() -> None:
    print(os.getpid(), flush=True)
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(carry_out(*json.loads(line)), default=str), flush=True)


if __name__ == "__main__":
    main()
