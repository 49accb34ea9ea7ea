"""Masks of grammars, applied to logits.

Bits become numbers on the device that has the logits. Tokens beyond those that a mask knows, which fill up a model's
vocabulary, are forbidden too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lorapool.worker.grammar.grammars import Masks


def forbid(logits: Tensor, masks: Masks) -> None:
    """Set what may not be drawn to minus infinity, in place on ``logits`` [rows, vocab]."""
    known = 32 * masks.bits.shape[1]
    rows = torch.tensor(masks.at, device=logits.device)
    whole = len(masks.at) == len(logits)
    chosen = logits if whole else logits[rows]
    chosen[:, :known].masked_fill_(_forbidden(masks, logits.device)[:, : logits.shape[1]], float("-inf"))
    chosen[:, known:] = float("-inf")
    if not whole:
        logits[rows] = chosen


def _forbidden(masks: Masks, device: torch.device) -> Tensor:
    """[rows, known] True where the bit is 0."""
    if device.type == "cpu":
        taken = np.unpackbits(~masks.bits.view(np.uint8), axis=1, bitorder="little")
        return torch.from_numpy(taken).view(torch.bool)
    words = torch.from_numpy(masks.bits.view(np.int32)).to(device)
    shifts = torch.arange(32, dtype=torch.int32, device=device)
    return ((words[:, :, None] >> shifts) & 1 == 0).flatten(1)
