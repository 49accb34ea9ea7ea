"""The base model on a device: its forward, its keys and values, its adapters in slots, the draw of a token.

torch and transformers live here. No Redis.
"""
