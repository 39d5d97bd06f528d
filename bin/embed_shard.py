#!/usr/bin/env python3
import sys

from virnucpro.cli import embed_main

if __name__ == "__main__":
    sys.exit(embed_main())
