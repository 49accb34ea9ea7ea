"""Files that agents give to a pool, and the batches that are fed from them: what is known of each, in Redis."""
