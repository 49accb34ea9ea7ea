"""The attention kernel against plain attention in float64, and rows that do not depend on their neighbours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorapool.worker.kernels import attention as attention_kernel

BLOCK, ENDS = 64, [1, 5, 64, 65, 200, 320, 130]


def _store(heads: int, dim: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(5, len(ENDS), heads, BLOCK, dim).to(dtype)


def _plain(query: Tensor, keys: Tensor, values: Tensor, start: int, end: int) -> Tensor:
    """One row: query [heads, dim], keys and values [blocks, kv_heads, BLOCK, dim]."""
    share = len(query) // keys.shape[1]
    rows = [part.transpose(0, 1).flatten(1, 2)[:, start:end].double() for part in (keys, values)]
    k, v = (row.repeat_interleave(share, 0) for row in rows)
    weights = torch.softmax(query.double()[:, None] @ k.transpose(1, 2) * query.shape[-1] ** -0.5, -1)
    return (weights @ v)[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kv_heads", "share", "dim", "value_dim", "window"),
    [(3, 3, 64, 64, 0), (2, 1, 16, 16, 0), (2, 4, 32, 48, 0), (1, 8, 128, 128, 0), (2, 2, 64, 64, 40)],
)
def test_is_plain_attention(
    dtype: torch.dtype, kv_heads: int, share: int, dim: int, value_dim: int, window: int
) -> None:
    """Any grouping of heads, widths and lengths, in any order, over blocks, within a window."""
    torch.manual_seed(0)
    keys, values = _store(kv_heads, dim, dtype), _store(kv_heads, value_dim, dtype)
    query = torch.randn(kv_heads * share, len(ENDS), dim).to(dtype).transpose(0, 1)  # strided, as the model's is
    out = torch.empty(len(ENDS), kv_heads * share, value_dim, dtype=dtype)
    places = [(row, at, ENDS[row]) for at, row in enumerate([3, 1, 0, 2, 6, 5, 4])]
    attention_kernel.decode(query, keys, values, attention_kernel.rows(places), dim**-0.5, window, out)
    for row, at, end in places:
        want = _plain(query[at], keys[:, row], values[:, row], max(0, end - window) if window else 0, end)
        assert torch.allclose(want, out[at].double(), rtol=0, atol=1e-2 if dtype == torch.bfloat16 else 2e-6)
        alone = torch.empty_like(out[:1])
        listed = attention_kernel.rows([(row, 0, end)])
        attention_kernel.decode(query[at : at + 1], keys, values, listed, dim**-0.5, window, alone)
        assert torch.equal(alone[0], out[at])


def test_scores_far_apart_and_not_a_number() -> None:
    """A score that dwarfs the others, after and before them, gives its value; a NaN is not hidden."""
    keys, values = torch.zeros(5, len(ENDS), 1, BLOCK, 16), torch.randn(5, len(ENDS), 1, BLOCK, 16)
    keys[0, 0, 0, 3], keys[2, 1, 0, 3] = 1e4, 1e4
    keys[1, 2, 0, 3] = float("nan")
    out = torch.empty(3, 1, 16)
    places = attention_kernel.rows([(0, 0, 200), (1, 1, 200), (2, 2, 200)])
    attention_kernel.decode(torch.ones(3, 1, 16), keys, values, places, 1.0, 0, out)
    assert torch.equal(values[0, 0, 0, 3], out[0, 0])
    assert torch.equal(values[2, 1, 0, 3], out[1, 0])
    assert out[2].isnan().all()


def test_what_it_does_not_compute_it_does_not_claim() -> None:
    """Widths that are no whole vectors, wide heads and other dtypes are left to torch."""
    served = [
        attention_kernel.serves(torch.zeros(1, 1, dim, dtype=dtype), torch.zeros(1, dim, dtype=dtype), 64)
        for dim, dtype in ((64, torch.float32), (64, torch.float64), (24, torch.float32), (512, torch.float32))
    ]
    assert [True, False, False, False] == served
