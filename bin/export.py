#!/usr/bin/env python3
from virnucpro.cli.export import main

if __name__ == "__main__":
    raise SystemExit(main())
