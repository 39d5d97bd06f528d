#!/usr/bin/env python3
import sys

from virnucpro.cli import fetch_main

if __name__ == "__main__":
    sys.exit(fetch_main())
