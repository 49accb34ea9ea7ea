"""Masks of grammars, applied to logits.

Bits become numbers on the device that has the logits. Tokens beyond those that a mask knows, which fill up a model's
vocabulary, are forbidden too.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from lorapool.worker.grammar.grammars import Masks

FORBIDDEN = float("-inf")


def forbid(logits: Tensor, masks: Masks) -> None:
    """Set what may not be drawn to minus infinity, in place on ``logits`` [rows, vocab]. Logits that are no numbers
    may stay what they are: such a row is at an end whatever its mask."""
    known = 32 * masks.bits.shape[1]
    rows = torch.tensor(masks.at, device=logits.device)
    whole = len(masks.at) == len(logits)
    chosen = logits if whole else logits[rows]
    if logits.device.type == "cpu":
        chosen[:, :known] += _added(masks, logits.dtype)[:, : logits.shape[1]]
    else:
        chosen[:, :known].masked_fill_(_forbidden(masks, logits.device)[:, : logits.shape[1]], FORBIDDEN)
    chosen[:, known:] = FORBIDDEN
    if not whole:
        logits[rows] = chosen


def _added(masks: Masks, dtype: torch.dtype) -> Tensor:
    """[rows, known] what to add: looked up eight bits at a time, which takes a processor far less than to decide about
    each token."""
    octets = torch.from_numpy(masks.bits.view(np.uint8).astype(np.int32))
    return embedding(octets, _addends(dtype)).flatten(1)


@cache
def _addends(dtype: torch.dtype) -> Tensor:
    """[256, 8] for each eight bits, lowest first: minus infinity where one is 0, else minus zero, which changes no
    number."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    return torch.from_numpy(np.where(bits == 0, FORBIDDEN, -0.0)).to(dtype)


def _forbidden(masks: Masks, device: torch.device) -> Tensor:
    """[rows, known] True where the bit is 0."""
    words = torch.from_numpy(masks.bits.view(np.int32)).to(device)
    shifts = torch.arange(32, dtype=torch.int32, device=device)
    return ((words[:, :, None] >> shifts) & 1 == 0).flatten(1)
