"""How other systems run the same workload."""
