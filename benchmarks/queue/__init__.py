"""How fast jobs pass through the queue when there is nothing to compute; ours and the peers, in one run."""
