"""`python3 -m portico.local`: refuses a Python too old to read the rest, then leaves it to `portico.local.prepare`."""

import sys

if sys.version_info < (3, 7):  # noqa: UP036 - this is where an older one is told
    sys.exit("Portico needs Python 3.11, 3.12 or 3.13. Add one to the make command: PYTHON=python3.12")

from portico.local.prepare import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
