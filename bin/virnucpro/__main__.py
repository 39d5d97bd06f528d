"""``python -m virnucpro`` is the command ``virnucpro``."""

import sys

from virnucpro.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
