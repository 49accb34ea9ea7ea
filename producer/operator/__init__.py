"""What an operator asks of a pool: upkeep, and what it all costs."""
