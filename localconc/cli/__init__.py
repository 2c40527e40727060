"""The command line: see, set and use limits from a shell. Needs the extra `cli`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from localconc.cli.faults import INTERRUPTED


def main() -> int:
    """Run the command line with the arguments of this process.

    >>> import sys
    >>> sys.exit(main())  # what the console script `localconc` does

    Returns:
        The exit status.
    """
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        needed = " and ".join(missing)
        print(f"localconc: the command line needs {needed}: pip install 'localconc[cli]'", file=sys.stderr)
        return 1
    try:
        from localconc.cli.program import run

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED
