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
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def gated(gate_up: Tensor) -> Tensor:
    """SiLU(gate) · up of rows that hold both, side by side: [rows, 2 * width] → [rows, width]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return kernel.silu_gate(gate, up) if kernel.serves(gate_up.dtype, gate_up.device) else silu(gate) * up


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the halves of each head [rows, heads, dim] by the angles of its row [rows, dim]."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return torch.addcmul(x * cos[:, None], turned, sin[:, None])


def add_(residual: Tensor, part: Tensor) -> None:
    """Add in place."""
    residual += part
