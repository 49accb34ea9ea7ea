"""The Engine port, and the native engine's own scheduling behind it.

Requests become sequences, sequences share steps, adapters share slots. Pure Python: no torch, no Redis.
"""
