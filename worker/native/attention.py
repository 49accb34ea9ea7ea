"""Attention over the KV cache, for one flat row of tokens of many sequences.

Registered with transformers under one name; the step's plan reaches it as a keyword argument of ``model(...)``. Rows
of one token are computed by a kernel of our own on the CPU; elsewhere, and under soft caps, by two batched products per
group (SDPA's CPU kernel takes six times as long on them). Whole prompts are padded SDPA; chunks with a past go one by
one. Honours sliding windows and soft caps. On CUDA it is meant to be right, was not run, and is not yet fast. Knows
neither adapters nor sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from lorapool.worker.engine.sequence import Work
from lorapool.worker.kernels import attention as attention_kernel
from lorapool.worker.kernels import kv_write
from lorapool.worker.native.kv_cache import KvCache, RowTensors

NAME = "lorapool"
_PAD_RATIO = 1.5  # prompts whose lengths differ by less share one padded product


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence's tokens: from ``offset`` in the flat row, from position ``start`` in its KV row."""

    offset: int
    start: int
    count: int
    tensors: RowTensors
    row: int

    @property
    def end(self) -> int:
        return self.start + self.count


@dataclass(slots=True, eq=False)
class DecodeRows:
    """The one-token rows of a group: ``listed`` for the kernel, the rest for products. ``take`` gives each cache row
    its batch row (0 where it has none: computed, unused); ``put`` and ``at`` the cache rows and batch rows that count.
    All three None where both orders are the same."""

    tensors: RowTensors
    blocks: int  # read of every row: those that hold the longest one, its new token included
    ends: Tensor  # [rows] positions that each row may see, new token included
    listed: Tensor
    take: Tensor | None
    put: Tensor | None
    at: Tensor | None
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[rows, 1, positions]: 0 where a row may look, else -inf."""
        if window not in self.masks:
            position = torch.arange(self.blocks * self.tensors.group.block, device=self.ends.device)
            hidden = position >= self.ends[:, None]
            if window is not None:
                hidden |= position < self.ends[:, None] - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=self.ends.device)
            self.masks[window] = mask.masked_fill_(hidden, float("-inf"))[:, None, :]
        return self.masks[window]


class AttentionPlan:
    """What all layers share in one step: where new keys go, who decodes, which prompts are padded together."""

    def __init__(self, cache: KvCache, works: tuple[Work, ...], device: torch.device) -> None:
        self._device = device
        self._spans: list[Span] = []
        offset = 0
        for work in works:
            tensors, row = cache.place(work.sequence.seq_id)
            self._spans.append(Span(offset, work.start, work.count, tensors, row))
            tensors.group.wrote(row, work.start + work.count)
            offset += work.count
        self.tokens = offset
        self._groups_of_rows = _by_group(self._spans)
        self._decodes = [self._decode_part(tensors, spans) for tensors, spans in _by_group(self._singles())]
        longer = [span for span in self._spans if span.count > 1]
        self._groups = [self._padded(group) for group in _similar([span for span in longer if span.start == 0])]
        self._chunks = [span for span in longer if span.start > 0]
        self._writes: dict[int, list[tuple[RowTensors, Tensor]]] = {}  # by heads

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, cap: float | None
    ) -> Tensor:
        """Write the step's keys and values, return the attention output [tokens, heads, value_dim].

        ``query`` [tokens, heads, key_dim]; ``key`` and ``value`` [tokens, kv_heads, dim]; ``window`` in tokens, the
        query's own included; ``cap`` soft cap of the scores.
        """
        self._write(layer, key, value)
        out = query.new_empty(*query.shape[:2], value.shape[-1])
        for part in self._decodes:
            keys, values = part.tensors.keys[layer], part.tensors.values[layer]
            if cap is None and attention_kernel.serves(query, values, part.tensors.group.block):
                attention_kernel.decode(query, keys, values, part.listed, scale, window or 0, out)
            else:
                _decode(part, layer, query, scale, window, cap, out)
        for spans, index in self._groups:
            if cap is not None or (window is not None and max(span.count for span in spans) > window):
                for span in spans:
                    out[span.offset : span.offset + span.count] = _chunk(span, layer, query, scale, window, cap)
            else:
                _prompts(spans, index, query, key, value, scale, out)
        for span in self._chunks:
            out[span.offset : span.offset + span.count] = _chunk(span, layer, query, scale, window, cap)
        return out

    def _write(self, layer: int, key: Tensor, value: Tensor) -> None:
        heads = key.shape[1]
        if heads not in self._writes:
            self._writes[heads] = [self._new_rows(tensors, spans, heads) for tensors, spans in self._groups_of_rows]
        for tensors, listed in self._writes[heads]:
            keys, values = tensors.keys[layer], tensors.values[layer]
            if kv_write.serves(key, keys) and kv_write.serves(value, values):
                kv_write.write(key, value, listed, keys, values)
                continue
            tokens, lines = listed.to(self._device).unbind(1)
            index = (lines[:, None] + torch.arange(heads, device=self._device) * tensors.group.block).flatten()
            for store, new in ((keys, key), (values, value)):
                rows = new.index_select(0, tokens).reshape(-1, new.shape[-1])
                store.view(-1, store.shape[-1]).index_copy_(0, index, rows)

    def _new_rows(self, tensors: RowTensors, spans: list[Span], heads: int) -> tuple[RowTensors, Tensor]:
        """Each token's place in the batch, and its first head's line in the tensors seen as [lines, dim]."""
        places = [
            (span.offset + place, tensors.group.line(span.row, span.start + place, heads))
            for span in spans
            for place in range(span.count)
        ]
        return tensors, kv_write.places(places)

    def _singles(self) -> list[Span]:
        return [span for span in self._spans if span.count == 1]

    def _decode_part(self, tensors: RowTensors, spans: list[Span]) -> DecodeRows:
        rows = len(tensors.group.used)
        take, ends = [0] * rows, [1] * rows
        for span in spans:
            take[span.row], ends[span.row] = span.offset, span.end
        at, put = [span.offset for span in spans], [span.row for span in spans]
        same = at == put == list(range(rows))
        index = [None] * 3 if same else [torch.tensor(ids, device=self._device) for ids in (take, put, at)]
        listed = attention_kernel.rows([(span.row, span.offset, span.end) for span in spans])
        return DecodeRows(
            tensors, tensors.group.blocks(max(ends)), torch.tensor(ends, device=self._device), listed, *index
        )

    def _padded(self, spans: list[Span]) -> tuple[list[Span], Tensor]:
        """[rows, longest] indices into the flat row; a short prompt's end repeats its last token."""
        longest = max(span.count for span in spans)
        index = [[span.offset + min(place, span.count - 1) for place in range(longest)] for span in spans]
        return spans, torch.tensor(index, device=self._device)


def _by_group(spans: list[Span]) -> list[tuple[RowTensors, list[Span]]]:
    ordered = sorted(spans, key=lambda span: span.tensors.group.capacity)
    return [
        (group[0].tensors, group)
        for _, together in groupby(ordered, lambda span: span.tensors.group.capacity)
        if (group := list(together))
    ]


def _similar(spans: list[Span]) -> list[list[Span]]:
    """Group prompts of similar length, shortest first."""
    groups: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: span.count):
        if groups and span.count <= _PAD_RATIO * groups[-1][0].count:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _decode(
    part: DecodeRows, layer: int, query: Tensor, scale: float, window: int | None, cap: float | None, out: Tensor
) -> None:
    """Write the rows of ``out`` [tokens, heads, value_dim] that compute one token, by products over whole blocks."""
    given = query if part.take is None else query.index_select(0, part.take)
    seen = _seen(part, layer, given[: len(part.tensors.group.used)], scale, window, cap)
    if part.put is None or part.at is None:
        out[: len(seen)] = seen
    else:
        out.index_copy_(0, part.at, seen.index_select(0, part.put))


def _seen(part: DecodeRows, layer: int, query: Tensor, scale: float, window: int | None, cap: float | None) -> Tensor:
    """One query token a cache row: [rows, heads, key_dim] → [rows, heads, value_dim], keys and values read in place."""
    rows, heads, dim = query.shape
    keys, values = _blocks(part, part.tensors.keys[layer], rows), _blocks(part, part.tensors.values[layer], rows)
    query = query.reshape(len(keys[0]), -1, dim)
    parts = [torch.bmm(query, block.transpose(1, 2)) for block in keys]
    scores = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).view(rows, heads, -1)
    weights = _weights(scores, scale, part.mask(window, scores.dtype), cap)
    shares = weights.view(len(query), -1, weights.shape[-1]).chunk(part.blocks, dim=-1)
    out = torch.bmm(shares[0], values[0])
    for share, block in zip(shares[1:], values[1:], strict=True):
        out.baddbmm_(share, block)
    return out.view(rows, heads, -1)


def _blocks(part: DecodeRows, store: Tensor, rows: int) -> list[Tensor]:
    """Views [rows * kv_heads, block, dim] of the first rows."""
    return [block[:rows].flatten(0, 1) for block in store[: part.blocks]]


def _weights(scores: Tensor, scale: float, mask: Tensor, cap: float | None) -> Tensor:
    """Softmax of the scores; torch computes it in float32 inside."""
    if cap is not None:
        scores, scale = scores.mul_(scale / cap).tanh_(), cap
    return torch.softmax(torch.add(mask, scores, alpha=scale), dim=-1)


def _prompts(
    spans: list[Span], index: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float, out: Tensor
) -> None:
    """Whole prompts, padded to the longest: causal attention makes the padding harmless at the end."""
    rows, longest = index.shape

    def padded(flat: Tensor) -> Tensor:
        return flat.index_select(0, index.flatten()).view(rows, longest, *flat.shape[1:]).transpose(1, 2)

    seen = scaled_dot_product_attention(
        padded(query), padded(key), padded(value), is_causal=True, scale=scale, enable_gqa=True
    ).transpose(1, 2)
    for row, span in enumerate(spans):
        out[span.offset : span.offset + span.count] = seen[row, : span.count]


def _chunk(span: Span, layer: int, query: Tensor, scale: float, window: int | None, cap: float | None) -> Tensor:
    """Some tokens of one sequence against all of its past: [count, heads, value_dim]."""
    tensors = span.tensors
    keys, values = (tensors.row(store[layer], span.row, span.end) for store in (tensors.keys, tensors.values))
    rows = query[span.offset : span.offset + span.count].transpose(0, 1)  # [heads, count, dim]
    position = torch.arange(span.end, device=query.device)
    own = position[span.start :, None]
    visible = position <= own
    if window is not None:
        visible &= position > own - window
    if cap is None:
        seen = scaled_dot_product_attention(
            rows[None], keys[None], values[None], attn_mask=visible, scale=scale, enable_gqa=True
        )[0]
        return seen.transpose(0, 1)
    share = rows.shape[0] // keys.shape[0]
    scores = rows @ keys.repeat_interleave(share, 0).transpose(1, 2)
    mask = torch.zeros(visible.shape, dtype=scores.dtype, device=query.device).masked_fill_(~visible, float("-inf"))
    weights = _weights(scores, scale, mask, cap)
    return (weights @ values.repeat_interleave(share, 0)).transpose(0, 1)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    plan: AttentionPlan | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls, with [1, heads, tokens, dim] each; returns [1, tokens, heads, dim]."""
    assert plan is not None, "the model was called without its plan"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return plan.attend(module.layer_idx, query, key, value, scale, sliding_window, softcap)[None], None


def _no_mask(*_: Any, **__: Any) -> None:
    """The plan knows who sees whom; no mask tensor is made."""


def register() -> None:
    """Make ``attn_implementation="lorapool"`` known to transformers."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)
