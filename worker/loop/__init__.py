"""The worker's loop: claim → admit → step → settle, and the duties beside it.

Knows an engine by its port alone, and Redis by shared's queue. No torch.
"""
