#!/usr/bin/env python3
import sys

from virnucpro.cli import merge_main

if __name__ == "__main__":
    sys.exit(merge_main())
