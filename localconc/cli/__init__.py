"""The command line, which uses limits from a shell. It needs the extra `cli`."""

from __future__ import annotations

import sys

from localconc.cli.errors import FAILED, INTERRUPTED

#: What the extra `cli` installs.
_LIBRARIES = frozenset(["click", "rich"])


def main() -> int:
    """Run the command line with the arguments of this process.

    >>> import sys
    >>> sys.exit(main())  # what the console script `localconc` does

    Returns:
        The exit status.
    """
    try:
        from localconc.cli.program import run

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _LIBRARIES:
            raise
        remedy = "in a clone of localconc, run pip install '.[cli]'"
        print(f"localconc: the command line needs click and rich, and {missing} is missing: {remedy}", file=sys.stderr)
        return FAILED
