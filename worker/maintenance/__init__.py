"""Chores beside the queue, by arq: scheduled jobs, check and repair, what the dead left. The queue needs none of it."""
