"""`python -m localconc` is the command line."""

import sys

from localconc.cli import main

if __name__ == "__main__":
    sys.exit(main())
