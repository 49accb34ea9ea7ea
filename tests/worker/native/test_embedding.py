"""LoRA on embeddings: each row gets its own adapter's part, as a product with a one-hot row would give it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lorapool.worker.native.embedding import EmbeddingTables

IDS, DIM = 11, 6
PATH = "model.embed_tokens"


@dataclass(frozen=True)
class Weights:
    A: Tensor
    B: Tensor
    gain: Tensor | None = None
    offset: Tensor | None = None

    @classmethod
    def drawn(cls, seed: int, rank: int, *, gain: bool = False) -> Weights:
        draw = torch.Generator().manual_seed(seed)
        scale = 1 + torch.rand(DIM, generator=draw) if gain else None
        return cls(torch.randn(rank, IDS, generator=draw), torch.randn(DIM, rank, generator=draw), scale)

    def expected(self, ids: Tensor, base: Tensor) -> Tensor:
        """gain·base + B·A·x over one-hot x."""
        hot = one_hot(ids, IDS).to(self.A.dtype)
        scaled = base if self.gain is None else base * self.gain
        return scaled + hot @ self.A.t() @ self.B.t()


def tables(dtype: torch.dtype = torch.float32) -> EmbeddingTables:
    return EmbeddingTables([PATH, "other"], dtype, torch.device("cpu"))


def looked_up(rows: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(IDS, (rows,), generator=draw), torch.randn(rows, DIM, generator=draw)


def test_each_segment_gets_its_own_adapters_part() -> None:
    """Of any rank, with a gain or without; rows of the base model and of an adapter without a part stay as they are."""
    found, (ids, base) = tables(), looked_up(9)
    first, second = Weights.drawn(1, rank=3), Weights.drawn(2, rank=4, gain=True)
    found.write(1, PATH, first)
    found.write(2, PATH, second)
    out = base.clone()
    found.apply(PATH, ids, out, [(1, 0, 3), (0, 3, 5), (2, 5, 8), (7, 8, 9)])
    torch.testing.assert_close(first.expected(ids[:3], base[:3]), out[:3])
    assert torch.equal(base[3:5], out[3:5])
    torch.testing.assert_close(second.expected(ids[5:8], base[5:8]), out[5:8])
    assert torch.equal(base[8:], out[8:])


def test_an_embedding_is_no_other_embedding() -> None:
    """What was written for one reaches no other, such as a tied head's."""
    found, (ids, base) = tables(), looked_up()
    found.write(1, PATH, Weights.drawn(1, rank=3))
    out = base.clone()
    found.apply("other", ids, out, [(1, 0, 5)])
    assert torch.equal(base, out)


def test_a_slot_is_written_anew_and_cleared() -> None:
    """The next adapter of a slot leaves nothing of the one before; a cleared slot adds nothing."""
    found, (ids, base) = tables(), looked_up()
    found.write(1, PATH, Weights.drawn(1, rank=3, gain=True))
    after = Weights.drawn(2, rank=2)
    found.write(1, PATH, after)
    out = base.clone()
    found.apply(PATH, ids, out, [(1, 0, 5)])
    torch.testing.assert_close(after.expected(ids, base), out)
    found.write(2, "other", after)
    assert {1, 2} == found.slots()
    found.clear(1)
    assert {2} == found.slots()
    out = base.clone()
    found.apply(PATH, ids, out, [(1, 0, 5)])
    assert torch.equal(base, out)


@pytest.mark.parametrize(("dtype", "item"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_bytes_are_those_of_the_true_rank(dtype: torch.dtype, item: int) -> None:
    """In the tables' dtype; a gain is kept in float32 at least."""
    found = tables(dtype)
    assert 0 == found.nbytes
    found.write(1, PATH, Weights.drawn(1, rank=3, gain=True))
    assert 3 * (IDS + DIM) * item + DIM * 4 == found.nbytes
    found.clear(1)
    assert 0 == found.nbytes


def test_which_embeddings_there_are() -> None:
    assert PATH in tables()
    assert "lm_head" not in tables()


def test_an_embedding_has_no_bias() -> None:
    weights = Weights.drawn(1, rank=2)
    with pytest.raises(AssertionError, match="no bias"):
        tables().write(1, PATH, Weights(weights.A, weights.B, offset=torch.zeros(DIM)))
