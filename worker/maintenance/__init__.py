"""arq's part: schedules and chores, beside the queue. The claim protocol never depends on it."""
