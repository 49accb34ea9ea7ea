"""Who is there and what was done: workers' membership and beats, counters."""
