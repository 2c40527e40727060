"""The process behind `hold`: takes slots, says so, and gives them back once its standard input ends."""

from __future__ import annotations

import ast
import sys

from localconc.errors import LocalconcError
from localconc.sync import concurrency


def main(what: str) -> None:
    name, occupy, limit, timeout_seconds = ast.literal_eval(what)
    try:
        with concurrency(name, occupy, timeout_seconds=timeout_seconds, limit=limit, strict=True):
            print("held", flush=True)
            sys.stdin.read()
    except LocalconcError as error:
        print(type(error).__name__, " ".join(str(error).split()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
