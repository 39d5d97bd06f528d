"""SPLIT_FASTA: protein FASTA to shards of equal cost, and the ledger that has one row for every record."""
