"""Jobs at stated times: schedules, and the chores that carry them out."""
