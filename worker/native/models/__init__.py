"""The forwards that a runner can drive: a flat one for the Llama family, Hugging Face's own modules for all others.

A forward knows the model's arithmetic, its weights and the adapters' slots; neither loading nor scheduling.
"""
