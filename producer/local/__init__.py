"""A pool on this machine: its server and its worker as child processes, which end with whoever started them."""
