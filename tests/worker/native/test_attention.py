"""Attention over the cache against the plain formula, one sequence at a time."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorapool.worker.engine.sequence import Batch, Work
from lorapool.worker.native.attention import AttentionPlan
from lorapool.worker.native.kv_cache import KvCache, LayerShape
from tests.worker.tiny import sequence

HEADS, KV_HEADS, DIM = 4, 2, 6


def _alone(tensors: list[torch.Tensor], window: int | None, cap: float | None) -> torch.Tensor:
    """Causal attention over one whole sequence; query, key, value [tokens, heads, dim]."""
    query, key, value = tensors
    key, value = (t.repeat_interleave(HEADS // KV_HEADS, 1).transpose(0, 1) for t in (key, value))
    scores = query.transpose(0, 1) @ key.transpose(1, 2) * 0.5
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    place = torch.arange(len(query))
    hidden = place[None, :] > place[:, None]
    if window is not None:
        hidden |= place[None, :] <= place[:, None] - window
    return (torch.softmax(scores.masked_fill(hidden, float("-inf")), -1) @ value).transpose(0, 1)


@pytest.mark.parametrize(("window", "cap"), [(None, None), (5, None), (None, 3.0), (5, 3.0)])
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=6), st.randoms(use_true_random=True))
def test_any_schedule_gives_what_each_sequence_gives_alone(
    window: int | None, cap: float | None, lengths: list[int], chance: random.Random
) -> None:
    """Prompts whole or in chunks, decode steps, groups of several lengths, rows leaving: the formula's answer."""
    torch.manual_seed(chance.randrange(1 << 30))
    cache = KvCache((LayerShape(KV_HEADS, DIM, DIM),), max_tokens=200, budget_bytes=1 << 26, dtype=torch.float64)
    rows = [sequence(str(index), [0] * length) for index, length in enumerate(lengths)]
    tensors = {
        row.seq_id: [torch.randn(row.length, n, DIM).double() for n in (HEADS, KV_HEADS, KV_HEADS)] for row in rows
    }
    for row in rows:
        cache.reserve(row.seq_id, row.length)
    while rows:
        works = [Work(row, row.computed, chance.choice([1, 1, 7, 1000])) for row in rows if chance.random() < 0.8]
        works = [Work(w.sequence, w.start, min(w.count, w.sequence.length - w.start)) for w in works]
        batch = Batch.of(works)
        if not works:
            continue
        flat = [
            torch.cat([tensors[w.sequence.seq_id][kind][w.start : w.start + w.count] for w in batch.works])
            for kind in range(3)
        ]
        query, key, value = flat
        got = AttentionPlan(cache, batch.works, torch.device("cpu")).attend(0, query, key, value, 0.5, window, cap)
        start = 0
        for work in batch.works:
            want = _alone(tensors[work.sequence.seq_id], window, cap)[work.start : work.start + work.count]
            assert torch.allclose(want, got[start : start + work.count], atol=1e-6)
            start += work.count
            work.sequence.computed += work.count
        for row in [row for row in rows if row.computed == row.length]:
            cache.release(row.seq_id)
            rows.remove(row)
        cache.check_integrity()
