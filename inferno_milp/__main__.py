"""`python -m inferno_milp`."""

import sys

from inferno_milp.cli import main

if __name__ == "__main__":
    sys.exit(main())
