"""Token ids that a request names, against those that there are.

An id beyond the embedding's rows would fail the step of all, on CUDA the device with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from lorapool.shared.errors import InvalidRequest
from lorapool.worker.engine.port import Sampling

_SHOWN = 5


def check_vocabulary(prompt_ids: list[int], params: Sampling, size: int) -> None:
    """Raise InvalidRequest, with the ids that are none of ``size``, those of the prompt or those of logit_bias."""
    if prompt_ids and not 0 <= min(prompt_ids) <= max(prompt_ids) < size:
        raise _beyond("the prompt", prompt_ids, size)
    if any(not 0 <= token_id < size for token_id, _ in params.logit_bias):
        raise _beyond("logit_bias", (token_id for token_id, _ in params.logit_bias), size)


def _beyond(where: str, token_ids: Iterable[int], size: int) -> InvalidRequest:
    strange = sorted({token_id for token_id in token_ids if not 0 <= token_id < size})
    more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
    shown = ", ".join(map(str, strange[:_SHOWN]))
    return InvalidRequest(f"{where} names token {shown}{more}: the vocabulary has {size} tokens, 0 to {size - 1}")
