"""The write of new keys and values: exactly the listed rows, exactly where they belong."""

from __future__ import annotations

import pytest
import torch

from lorapool.worker.kernels import kv_write


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dims", [(16, 16), (24, 40), (5, 3)])
def test_listed_rows_are_copied_and_nothing_else(dtype: torch.dtype, dims: tuple[int, int]) -> None:
    """Parts of something wider, heads apart, widths that are no whole vectors: the numbers as they are."""
    torch.manual_seed(0)
    blocks, rows, heads, block = 2, 3, 2, 4
    stores = [torch.zeros(blocks, rows, heads, block, dim, dtype=dtype) for dim in dims]
    key, value = (torch.randn(5, heads, dim + 8).to(dtype)[..., :dim] for dim in dims)
    listed = [(4, (1 * rows + 2) * heads * block + 3), (0, 1)]  # batch row, line of the first head
    assert kv_write.serves(key, stores[0])
    kv_write.write(key, value, kv_write.places(listed), *stores)
    expected = [torch.zeros_like(store) for store in stores]
    for store, new in zip(expected, (key, value), strict=True):
        store[1, 2, :, 3], store[0, 0, :, 1] = new[4], new[0]
    assert all(map(torch.equal, expected, stores))
