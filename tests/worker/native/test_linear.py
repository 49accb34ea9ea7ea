"""Products of the base model: the same numbers as the modules', however they are called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorapool.worker.native.models.fused_inputs import products


def _modules(dtype: torch.dtype) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made = {"q": nn.Linear(16, 24, bias=False), "k": nn.Linear(16, 8), "o": nn.Linear(24, 16), "c": Conv1D(5, 16)}
    return {path: module.to(dtype).requires_grad_(requires_grad=False) for path, module in made.items()}


def _one_storage(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("order", ["qkoc", "kqoc", "qqkk", "kcq", "ok"])
def test_every_product_is_its_modules(dtype: torch.dtype, order: str) -> None:
    """Fused or not, in any order, repeated, left out, with changing inputs."""
    modules = _modules(dtype)
    found = products(modules, [["q", "k"], ["o"], ["c"]])
    for _ in range(3):
        x, inner = torch.randn(1, 7, 16, dtype=dtype), torch.randn(1, 7, 24, dtype=dtype)
        for path in order:
            given = inner if path == "o" else x
            torch.testing.assert_close(modules[path](given), found[path](given))


@pytest.mark.parametrize(("dtype", "fused"), [(torch.float32, True), (torch.float64, False)])
def test_modules_of_one_input_are_one_product(dtype: torch.dtype, *, fused: bool) -> None:
    """Where weights can be packed, q and k are parts of one output; elsewhere each has its own."""
    found, x = products(_modules(dtype), [["q", "k"]]), torch.randn(1, 3, 16, dtype=dtype)
    assert _one_storage(found["q"](x), found["k"](x)) == fused


def test_adding_to_one_part_leaves_the_others() -> None:
    """What adapters add to q in place does not reach k, though both lie in one output."""
    modules = _modules(torch.float32)
    found = products(modules, [["q", "k"]])
    x = torch.randn(1, 3, 16)
    q = found["q"](x).add_(100.0)
    k = found["k"](x)
    assert _one_storage(q, k)
    torch.testing.assert_close(modules["q"](x) + 100.0, q)
    torch.testing.assert_close(modules["k"](x), k)


def test_a_cpu_without_bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where oneDNN cannot pack bfloat16 weights (AVX2 alone), the modules' own products stay."""

    def refuse(*_: object) -> None:
        raise RuntimeError("bf16 path needs the cpu support")

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuse)
    modules, x = _modules(torch.bfloat16), torch.randn(3, 16, dtype=torch.bfloat16)
    found = products(modules, [["q", "k"], ["o"], ["c"]])
    torch.testing.assert_close(modules["q"](x), found["q"](x))
