"""The command lines of the task scripts, one module for each, so that an edit of one concerns no other."""

from virnucpro.interrupts import expect_interrupts

# Before anything else is imported.
expect_interrupts()
