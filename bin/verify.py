#!/usr/bin/env python3
from virnucpro.cli.program import run_as_process
from virnucpro.cli.verify import main

if __name__ == "__main__":
    run_as_process(main)
