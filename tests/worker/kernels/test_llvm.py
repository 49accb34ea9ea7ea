"""Kernels of our own: what they compute, bit by bit where it can be said, and on which threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorapool.worker.kernels import attention as attention_kernel
from lorapool.worker.kernels import elementwise as elementwise_kernel
from lorapool.worker.kernels import llvm as machine_code
from lorapool.worker.kernels import lora as lora_kernel
from lorapool.worker.kernels.memory import DTYPES


def _bits(values: list[Any]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "rank", "out"), [(1, 1, 1), (17, 3, 15), (513, 16, 64), (1_030, 33, 1_100)])
def test_a_row_does_not_depend_on_its_neighbours(dtype: torch.dtype, width: int, rank: int, out: int) -> None:
    """Bit for bit the same, whether a row is alone, in a full tile or the last of a ragged one."""
    torch.manual_seed(width)
    x, base = torch.randn(11, width).to(dtype), torch.randn(11, out).to(dtype)
    downs, ups = torch.randn(3, width, rank).to(dtype), torch.randn(3, rank, out).to(dtype)

    def added(rows: slice, segments: list[tuple[int, int, int]]) -> torch.Tensor:
        got = base[rows].clone()
        lora_kernel.bind(downs, [(0, ups)], lora_kernel.row_tiles(segments))(x[rows], [got])
        return got

    together = added(slice(0, 11), [(2, 0, 5), (1, 5, 11)])
    for row in range(11):
        alone = added(slice(row, row + 1), [(2 if row < 5 else 1, 0, 1)])
        assert torch.equal(alone[0], together[row])
    exact = base[:5].double() + x[:5].double() @ downs[2].double() @ ups[2].double()
    largest = float(exact.abs().max())
    assert torch.allclose(
        exact, together[:5].double(), rtol=0, atol=largest * (1e-2 if dtype == torch.bfloat16 else 1e-5)
    )


def test_bfloat16_is_rounded_to_nearest_even_as_torch_does() -> None:
    """Ties, overflow to infinity, infinities and NaN."""
    base = _bits([1.0, 1.0, 3.3895e38, float("inf"), float("nan"), -0.0])
    added = torch.tensor([2.0**-8, 3 * 2.0**-8, 3e38, 1.0, 1.0, 0.0])
    got = base.clone()[None]
    ups = added.to(torch.bfloat16)[None, None]
    lora_kernel.bind(_bits([[[1.0]]]), [(0, ups)], lora_kernel.row_tiles([(0, 0, 1)]))(_bits([[1.0]]), [got])
    want = (base.float() + added.to(torch.bfloat16).float()).to(torch.bfloat16)
    assert torch.equal(want.view(torch.int16)[[0, 1, 2, 3, 5]], got[0].view(torch.int16)[[0, 1, 2, 3, 5]])
    assert torch.isnan(got[0, 4])


def test_inputs_that_do_not_lie_side_by_side() -> None:
    """A transposed input is read as what it says, not as it lies, whatever torch's default dtype is."""
    x, out = torch.arange(12.0).view(4, 3).t(), torch.zeros(3, 2)
    add = lora_kernel.bind(torch.ones(1, 4, 1), [(0, torch.ones(1, 1, 2))], lora_kernel.row_tiles([(0, 0, 3)]))
    torch.set_default_dtype(torch.bfloat16)
    try:
        add(x, [out])
    finally:
        torch.set_default_dtype(torch.float32)
    assert [[18.0, 18.0], [22.0, 22.0], [26.0, 26.0]] == out.tolist()
    with pytest.raises(AssertionError, match="side by side"):
        add(x, [torch.zeros(2, 3).t()])


def test_runs_alone_where_torch_has_no_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a team to join, one thread does all the work."""
    monkeypatch.setattr(machine_code, "_team", lambda: None)
    lora_kernel._kernel.cache_clear()
    try:
        out = torch.zeros(9, 3)
        add = lora_kernel.bind(torch.ones(1, 20, 2), [(0, torch.ones(1, 2, 3))], lora_kernel.row_tiles([(0, 0, 9)]))
        add(torch.ones(9, 20), [out])
    finally:
        lora_kernel._kernel.cache_clear()
    assert torch.equal(torch.full((9, 3), 40.0), out)


def test_joins_the_threads_of_torch() -> None:
    """On Linux the team is that of the OpenMP library which torch brings."""
    assert machine_code._team() is not None


def test_without_llvm_no_kernel_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where machine code cannot be made or run, torch computes: nothing is claimed, nothing raised."""
    cpu, numbers = torch.device("cpu"), torch.zeros(1, 1, 64)

    def served() -> list[bool]:
        return [
            lora_kernel.serves(torch.float32, cpu),
            elementwise_kernel.serves(torch.float32, cpu),
            attention_kernel.serves(numbers, numbers, 64),
        ]

    def refuse(_: str) -> None:
        raise RuntimeError("no target for this CPU")

    assert [True] * 3 == served()
    monkeypatch.setattr(machine_code, "_machine_code", refuse)
    machine_code.at_hand.cache_clear()
    try:
        assert [False] * 3 == served()
    finally:
        machine_code.at_hand.cache_clear()
