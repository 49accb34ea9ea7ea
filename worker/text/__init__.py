"""Text to token ids and back, and chat templates in a process of their own. No torch, no Redis."""
