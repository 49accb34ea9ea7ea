"""What an agent holds: a Client, handles of its jobs, and what lies behind them."""
