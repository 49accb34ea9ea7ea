"""Who may ask a pool through its gateway: API keys with their quotas, and the trail of what was done to the pool."""
