"""`python -m rubberduck` is the command line."""

import sys

from rubberduck.cli import main

if __name__ == "__main__":
    sys.exit(main())
