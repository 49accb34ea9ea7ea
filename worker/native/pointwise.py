"""What lies between a forward's products: norms, gates, rotations, sums.

Kernels of our own where they serve, else torch. Rows are [rows, width]. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from lorapool.worker.kernels import elementwise as kernel


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """``weight`` · x / √(mean of x² + eps), of each row [..., width]; rounded before the weight, as in transformers."""

    weight: Tensor
    eps: float

    @classmethod
    def of(cls, module: Any) -> Norm:
        """The norm that one of transformers' RMSNorm modules computes."""
        return cls(module.weight.data, float(module.variance_epsilon))

    def __call__(self, x: Tensor) -> Tensor:
        if kernel.serves(x.dtype, x.device):
            return kernel.rms_norm(x, self.weight, self.eps)
        wide = x.float()  # of float64 as well: that is what transformers computes
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)

    def after_adding(self, residual: Tensor, part: Tensor) -> Tensor:
        """Add ``part`` to ``residual`` [rows, width] in place, and norm the sum."""
        if kernel.serves(residual.dtype, residual.device):
            return kernel.add_rms_norm(residual, part, self.weight, self.eps)
        residual += part
        return self(residual)


def gated(gate_up: Tensor) -> Tensor:
    """SiLU(gate) · up of rows that hold both, side by side: [rows, 2 * width] → [rows, width]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return kernel.silu_gate(gate, up) if kernel.serves(gate_up.dtype, gate_up.device) else silu(gate) * up


def rotate_(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn the halves of each head [rows, heads, dim] in place, by the angles of its row [rows, dim]."""
    if kernel.serves(heads.dtype, heads.device):
        kernel.rotate(heads, cos, sin)
        return
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    heads.mul_(cos[:, None]).addcmul_(turned, sin[:, None])
