"""The claim protocol: jobs from enqueue to their one end."""
