"""What travels between agents and workers, and where it lives. No torch; imports neither side."""
