#!/usr/bin/env python3
import sys

from virnucpro.cli import report_main

if __name__ == "__main__":
    sys.exit(report_main())
