"""Products with packed weights: those of torch in float64, and of a row the same in any company."""

from __future__ import annotations

import pytest
import torch

from lorapool.worker.kernels import llvm
from lorapool.worker.kernels import matmul as matmul_kernel

pytestmark = pytest.mark.skipif(not llvm.at_hand(), reason="LLVM compiles nothing here")


@pytest.mark.parametrize("rows", [1, 5, 6, 64, 97, 200])
@pytest.mark.parametrize(("width", "out"), [(1, 16), (40, 48), (384, 16), (800, 112)])
def test_a_product_is_that_of_torch(rows: int, width: int, out: int) -> None:
    """Any number of rows and inputs, rows apart or side by side, a bias added."""
    torch.manual_seed(rows)
    x, weight, bias = torch.randn(rows, width + 3)[:, :width], torch.randn(out, width), torch.randn(out)
    got = matmul_kernel.matmul(x, matmul_kernel.packed(weight), bias)
    want = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * width**0.5)
    assert torch.equal(got, matmul_kernel.matmul(x[None], matmul_kernel.packed(weight), bias)[0])


def test_company_changes_no_bit() -> None:
    """A row alone, first, last and in the middle of others."""
    torch.manual_seed(0)
    x, panels, bias = torch.randn(100, 500), matmul_kernel.packed(torch.randn(64, 500)), torch.randn(64)
    together = matmul_kernel.matmul(x, panels, bias)
    for row in (0, 41, 96, 99):
        assert torch.equal(together[row : row + 1], matmul_kernel.matmul(x[row : row + 1], panels, bias))


def test_what_it_does_not_compute_it_does_not_claim() -> None:
    """Other dtypes, and outputs that are no whole vectors."""
    assert not matmul_kernel.serves(torch.zeros(16, 8, dtype=torch.bfloat16))
    assert not matmul_kernel.serves(torch.zeros(16, 8, dtype=torch.float64))
    assert not matmul_kernel.serves(torch.zeros(17, 8))
