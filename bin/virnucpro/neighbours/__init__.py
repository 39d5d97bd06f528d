"""NEIGHBOURS: which vectors lie nearest to each, exactly."""
