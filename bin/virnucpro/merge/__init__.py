"""MERGE_EMBEDDINGS: the shards to one result in input order, joined with the metrics, proved to be whole."""
