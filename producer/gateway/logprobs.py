"""Log probabilities in the two forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorapool.shared.job import TokenLogprob

Told = Sequence[TokenLogprob] | None
LEAST = -9999.0  # OpenAI's own word for less


def chat_logprobs(tokens: Told) -> dict[str, Any] | None:
    """Of a chat: an entry a token, with the most probable ones there."""
    if tokens is None:
        return None
    content = [_entry(token) | {"top_logprobs": [_entry(top) for top in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def plain_logprobs(tokens: Told, *, offset: int = 0) -> dict[str, Any] | None:
    """Of a plain completion: four lists; ``offset`` is where in the text the first token begins."""
    if tokens is None:
        return None
    texts = [_text(token) for token in tokens]
    offsets = [offset := offset + len(before) for before in ["", *texts[:-1]]] if texts else []
    return {
        "tokens": texts,
        "token_logprobs": [_bounded(token) for token in tokens],
        "top_logprobs": [{_text(top): _bounded(top) for top in token.top} for token in tokens],
        "text_offset": offsets,
    }


def _entry(token: TokenLogprob) -> dict[str, Any]:
    return {"token": _text(token), "logprob": _bounded(token), "bytes": list(token.text)}


def _text(token: TokenLogprob) -> str:
    return token.text.decode(errors="replace")


def _bounded(token: TokenLogprob) -> float:
    return max(LEAST, token.logprob)
