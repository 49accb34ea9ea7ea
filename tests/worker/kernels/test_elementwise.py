"""The elementwise kernels against torch in float64, wherever a row lies and whatever its neighbours are."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import rms_norm, silu

from lorapool.worker.kernels import elementwise as elementwise_kernel
from lorapool.worker.kernels.memory import DTYPES

_ROUNDINGS = {torch.float32: 1e-6, torch.bfloat16: 2.0**-7}  # relative, of two roundings


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 15, 16, 40, 1_030])
def test_a_norm_is_that_of_torch(dtype: torch.dtype, width: int) -> None:
    """Any width, rows side by side or not, and bit for bit the same alone."""
    torch.manual_seed(width)
    x, weight = torch.randn(2, 3, 2 * width).to(dtype)[..., :width], torch.randn(width).to(dtype)
    got = elementwise_kernel.rms_norm(x, weight, 1e-5)
    want = rms_norm(x.double(), [width], weight.double(), 1e-5)
    torch.testing.assert_close(got.double(), want, rtol=2 * _ROUNDINGS[dtype], atol=1e-9)
    assert torch.equal(got[1, 2], elementwise_kernel.rms_norm(x[1, 2], weight, 1e-5))
    turned = x.reshape(6, width).t().contiguous().t()
    assert torch.equal(got.view(6, width), elementwise_kernel.rms_norm(turned, weight, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 17, 88])
def test_a_gate_is_that_of_torch(dtype: torch.dtype, width: int) -> None:
    """Gate and up as halves of one product, and bit for bit the same alone."""
    torch.manual_seed(width)
    gate, up = (torch.randn(2, 3, 2 * width) * 10).to(dtype).split(width, dim=-1)
    got = elementwise_kernel.silu_gate(gate, up)
    torch.testing.assert_close(got.double(), silu(gate.double()) * up.double(), rtol=2 * _ROUNDINGS[dtype], atol=1e-6)
    assert torch.equal(got[1, 2], elementwise_kernel.silu_gate(gate[1, 2], up[1, 2]))


def test_what_they_do_not_compute_they_do_not_claim() -> None:
    """Float64, half precision and other devices are left to torch."""
    cpu, other = torch.device("cpu"), torch.device("meta")
    served = {dtype for dtype in (torch.float64, torch.float16, *DTYPES) if elementwise_kernel.serves(dtype, cpu)}
    assert set(DTYPES) == served
    assert not elementwise_kernel.serves(torch.float32, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_sum_is_rounded_and_then_normed(dtype: torch.dtype) -> None:
    """add_rms_norm adds in place what torch's own addition gives, and returns the norm of that."""
    torch.manual_seed(0)
    residual, part, weight = (torch.randn(*size).to(dtype) for size in ((7, 41), (7, 50), (41,)))
    part = part[:, :41]
    total = residual + part
    normed = elementwise_kernel.add_rms_norm(residual, part, weight, 1e-5)
    assert torch.equal(total, residual)
    assert torch.equal(elementwise_kernel.rms_norm(total, weight, 1e-5), normed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_heads_are_turned_where_they_lie(dtype: torch.dtype) -> None:
    """As in transformers, each head of a row by the row's angles; what lies beside the heads is not touched."""
    torch.manual_seed(0)
    wide = torch.randn(6, 3 * 40 + 11).to(dtype)
    cos, sin = (torch.randn(6, 40).to(dtype) for _ in range(2))
    heads, beside = wide[:, :120].view(6, 3, 40), wide[:, 120:].clone()
    x, exact = heads.double(), (cos.double()[:, None], sin.double()[:, None])
    expected = x * exact[0] + torch.cat((-x[..., 20:], x[..., :20]), dim=-1) * exact[1]
    elementwise_kernel.rotate(heads, cos, sin)
    torch.testing.assert_close(expected.to(dtype), heads, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert torch.equal(beside, wide[:, 120:])
