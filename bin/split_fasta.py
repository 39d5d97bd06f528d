#!/usr/bin/env python3
import sys

from virnucpro.cli import split_main

if __name__ == "__main__":
    sys.exit(split_main())
