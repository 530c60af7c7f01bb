"""eSEN and UMA, of fairchem-core."""
