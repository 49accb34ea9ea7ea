"""Grammars that answers are held to: judged, compiled, and made masks of tokens. No torch, no Redis, no engine."""
