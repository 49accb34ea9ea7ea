"""Small programs compiled where they run, each behind one ``serves()``: may it stand in for torch here?

Knows numbers and memory, nothing of models, adapters or jobs. No Redis.
"""
