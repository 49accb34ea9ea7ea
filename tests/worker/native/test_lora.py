"""LoraSlots: the batched computation against one row at a time, and slots that do not leak."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorapool.worker.native.lora import LoraSlots
from lorapool.worker.native.lora_products import KernelProduct, PaddedProduct
from tests.worker.tiny import Module, Weights

PATHS = {"q": (12, 8), "k": (12, 4), "o": (8, 12)}
SHARED = [["q", "k"], ["o"]]
BOUNDS = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 0.25}  # of sums whose terms are about 1 to 100


def _weights(chance: random.Random, rank: int, dtype: torch.dtype) -> Weights:
    """Numbers that ``dtype`` holds exactly, in float64."""
    torch.manual_seed(chance.randrange(1 << 30))
    made = Weights()
    for path, (width, out) in PATHS.items():
        if chance.random() < 0.7:
            gain = torch.rand(out).to(dtype).double() if chance.random() < 0.3 else None
            offset = torch.rand(out).to(dtype).double() if chance.random() < 0.3 else None
            down, up = torch.randn(rank, width).to(dtype).double(), torch.randn(out, rank).to(dtype).double()
            made.modules[path] = Module(down, up, gain, offset)
    return made


def _expected(weights: Weights | None, path: str, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    module = weights.modules.get(path) if weights else None
    if module is None:
        return out
    gain = 1.0 if module.gain is None else module.gain
    offset = 0.0 if module.offset is None else module.offset
    return gain * out + offset + x @ module.A.t() @ module.B.t()


@pytest.mark.parametrize("dtype", BOUNDS)
@settings(max_examples=60, deadline=None)
@given(
    segments=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=9),
    chance=st.randoms(use_true_random=True),
)
def test_each_row_gets_its_own_slots_weights(
    segments: list[tuple[int, int]], chance: random.Random, dtype: torch.dtype
) -> None:
    """Any mix of segments (empty ones too: a chunk draws nothing), ranks, partial adapters, gains, offsets and base
    rows equals each row computed alone."""
    slots = LoraSlots(5, 40, dtype, shared_inputs=SHARED)
    held: dict[int, Weights] = {}
    for slot in chance.choices(range(1, 6), k=8):  # some are overwritten
        held[slot] = _weights(chance, chance.choice([1, 2, 7, 16, 33]), dtype)
        slots.write(slot, held[slot])
    slots.check_integrity()
    segments.sort(key=lambda segment: chance.random() if chance.random() < 0.3 else segment[0])
    plan, total = slots.plan(segments), sum(count for _, count in segments)
    x, inner = torch.randn(total, 12, dtype=dtype), torch.randn(total, 8, dtype=dtype)
    for paths, row in ((["q", "k"], x), (["o"], inner)):
        wide = torch.randn(total, sum(PATHS[path][1] for path in paths), dtype=dtype)  # one product of both
        outs, got = (list(of.split([PATHS[path][1] for path in paths], dim=-1)) for of in (wide.clone(), wide))
        slots.apply(paths, row, got, plan)
        for path, out, added in zip(paths, outs, got, strict=True):
            start = 0
            for slot, count in segments:
                part = slice(start, start + count)
                want = _expected(held.get(slot), path, row[part].double(), out[part].double())
                assert torch.allclose(want, added[part].double(), rtol=BOUNDS[dtype], atol=BOUNDS[dtype])
                start += count


def test_a_cleared_slot_computes_nothing_and_changes_the_generation() -> None:
    """After clear a slot's rows are base rows; each change counts."""
    slots = LoraSlots(2, 4, torch.float32, shared_inputs=SHARED)
    slots.write(1, Weights({"q": Module(torch.ones(4, 12), torch.ones(8, 4), torch.ones(8) * 2)}))
    before = slots.generation
    slots.clear(1)
    out = torch.zeros(3, 8)
    slots.apply(["q", "k"], torch.ones(3, 12), [out, torch.zeros(len(out), 4)], slots.plan([(1, 3)]))
    assert not out.any()
    assert slots.generation > before
    slots.check_integrity()


def test_a_repeated_plan_is_kept_and_sees_no_old_weights() -> None:
    """The same segments give the same plan until a slot changes; then the new weights count."""
    slots = LoraSlots(2, 4, torch.float32, shared_inputs=SHARED)

    def added(scale: float) -> torch.Tensor:
        slots.write(1, Weights({"q": Module(torch.ones(4, 12), torch.ones(8, 4) * scale)}))
        out = torch.zeros(3, 8)
        plan = slots.plan([(1, 2), (0, 1)])
        assert plan is slots.plan([(1, 2), (0, 1)])
        slots.apply(["q", "k"], torch.ones(3, 12), [out, torch.zeros(len(out), 4)], plan)
        return out[:, 0]

    assert [48.0, 48.0, 0.0] == added(1.0).tolist()
    assert [96.0, 96.0, 0.0] == added(2.0).tolist()


@pytest.mark.parametrize(("dtype", "kinds"), [(torch.float64, {PaddedProduct}), (torch.float32, {KernelProduct})])
def test_one_row_of_each_of_many_slots(dtype: torch.dtype, kinds: set[type]) -> None:
    """Rows of many adapters beside a long segment: each row gets its own, by products or by kernels."""
    slots = LoraSlots(40, 4, dtype, shared_inputs=SHARED)
    for slot in range(1, 41):
        slots.write(slot, Weights({"q": Module(torch.ones(4, 12).double(), torch.full((8, 4), float(slot)).double())}))
    plan = slots.plan([(0, 2), *((slot, 1) for slot in range(1, 41)), (3, 30)])
    assert kinds == {type(part) for part in plan.products}
    out = torch.zeros(72, 8, dtype=dtype)
    slots.apply(["q", "k"], torch.ones(72, 12, dtype=dtype), [out, torch.zeros(len(out), 4)], plan)
    assert [0.0, 0.0, *(48.0 * slot for slot in range(1, 41)), *[144.0] * 30] == out[:, 0].tolist()


def test_a_smaller_adapter_leaves_nothing_of_the_larger_one() -> None:
    """Writing rank 1 over rank 4 gives rank 1's answer exactly."""
    slots = LoraSlots(1, 4, torch.float64, shared_inputs=SHARED)
    slots.write(1, Weights({"q": Module(torch.ones(4, 12).double(), torch.ones(8, 4).double())}))
    slots.write(1, Weights({"q": Module(torch.ones(1, 12).double(), torch.ones(8, 1).double())}))
    out = torch.zeros(2, 8).double()
    slots.apply(["q", "k"], torch.ones(2, 12).double(), [out, torch.zeros(len(out), 4)], slots.plan([(1, 2)]))
    assert torch.equal(torch.full((2, 8), 12.0).double(), out)


def test_bytes_are_only_taken_for_what_adapters_use() -> None:
    """An adapter on one module allocates that module's slots only."""
    slots = LoraSlots(3, 64, torch.float32, shared_inputs=SHARED)
    assert slots.nbytes == 0
    slots.write(1, Weights({"q": Module(torch.ones(2, 12), torch.ones(8, 2))}))
    assert slots.nbytes == 4 * (2 * 12 + 2 * 8) * 4
