"""The queues ours is measured against: one module a peer, each run by the Python of a venv of its own."""
