"""``python -m virnucpro`` is the command ``virnucpro``."""

from virnucpro.cli.command import run

if __name__ == "__main__":
    run()
