#!/usr/bin/env python3
from virnucpro.cli.export import main
from virnucpro.cli.program import run_as_process

if __name__ == "__main__":
    run_as_process(main)
