"""What the gateway's HTTP costs over the Python client, and how it compares with other doors, in one run."""
