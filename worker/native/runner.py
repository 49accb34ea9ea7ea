"""ModelRunner: the base model, one forward a step.

Turns a Batch into one flat row of tokens and the plans of its attention and its adapters, has a forward compute it, and
has the last rows sampled. Owns the KV cache and the LoRA slots. Knows neither how a model is loaded nor what checks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lorapool.worker.adapters.checkpoint import ModelSpec
from lorapool.worker.engine.port import EngineSick, OutOfMemory
from lorapool.worker.engine.sequence import Batch, Drawn, Segment, Work
from lorapool.worker.grammar.grammars import Grammars
from lorapool.worker.native import attention
from lorapool.worker.native.attention import AttentionPlan
from lorapool.worker.native.forward import Forward, Step
from lorapool.worker.native.kv_cache import KvCache
from lorapool.worker.native.lora import LoraSlots
from lorapool.worker.native.models.hugging_face import HuggingFaceForward
from lorapool.worker.native.models.llama import LlamaForward
from lorapool.worker.native.models.llama_family import unknown
from lorapool.worker.native.probe import probe
from lorapool.worker.native.sampler import Sampler

_PROBE = (1, 7, 13, 29)
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class ModelRunner:
    """Implements the engine's Runner. Not thread safe: one thread drives it.

    ``flat``: use the flat forward where it knows the model, rather than Hugging Face's modules. ``grammars``: who masks
    the rows that have one.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        slots: int,
        max_rank: int,
        max_model_len: int,
        kv_cache_bytes: int,
        lora_dtype: torch.dtype | None = None,
        names: Iterable[str] = (),
        flat: bool = True,
        grammars: Grammars | None = None,
    ) -> None:
        first = next(model.parameters())
        self.model: Any = model.eval()
        self.device, self.dtype = first.device, first.dtype
        self.max_model_len = max_model_len
        self.spec = ModelSpec.of(model, names)
        self._sampler, self._grammars = Sampler(), grammars
        self._wiped: set[str] = set()
        self._expected: Tensor | None = None  # logits of the probe, as they were first
        seen = probe(model)
        self._cache = KvCache(
            tuple(layer.shape for layer in seen.layers),
            max_tokens=max_model_len,
            budget_bytes=kv_cache_bytes,
            dtype=self.dtype,
            device=self.device,
        )
        embeddings = [path for path, module in self.spec.modules.items() if module.kind == "embedding"]
        self.lora = LoraSlots(slots, max_rank, lora_dtype or self.dtype, self.device, seen.fused_inputs, embeddings)
        self.not_flat = unknown(model) if flat else "not asked for"
        self._forward: Forward = (
            HuggingFaceForward(model, seen, self.lora, embeddings)
            if self.not_flat
            else LlamaForward(model, seen, self.lora)
        )

    def reserve(self, seq_id: str, tokens: int) -> bool:
        """Reserve a KV row; False if the cache, or the device's memory, has none to give now."""
        try:
            return self._cache.reserve(seq_id, tokens)
        except (RuntimeError, MemoryError) as error:
            if not _wants_memory(error):
                raise
            self._give_memory_back()
            return False

    def release(self, seq_id: str) -> None:
        """Give a sequence's KV row back."""
        self._cache.release(seq_id, wipe=seq_id in self._wiped)
        self._wiped.discard(seq_id)

    @property
    def reserved(self) -> frozenset[str]:
        """The sequences that hold a KV row."""
        return self._cache.owners

    @torch.inference_mode()
    def step(self, batch: Batch) -> list[Drawn]:
        """Compute the batch's tokens; draw the next one for each sequence whose last token is among them.

        Raises OutOfMemory where the device has no room for so many.
        """
        rows = [work.sequence for work in batch.works if work.draws]
        try:
            logits = self.logits(batch)
            masks = None if self._grammars is None else self._grammars.masks(rows)
            drawn = self._sampler.draw(logits, rows, masks) if rows else []
        except (RuntimeError, MemoryError) as error:
            if not _wants_memory(error):
                raise
            self._give_memory_back()
            raise OutOfMemory(str(error)) from None
        self._wiped |= {row.seq_id for row in drawn if row.error is not None}
        return drawn

    def probe(self) -> None:
        """Raise EngineSick unless the model's own forward of a few tokens gives what it gave at the start."""
        logits = self.reference_logits([token % self.vocabulary for token in _PROBE])
        if not bool(torch.isfinite(logits).all()):
            raise EngineSick("its logits are not numbers")
        expected = self._expected = logits if self._expected is None else self._expected
        if float((logits - expected).abs().max()) > float(expected.abs().max()) / 8:
            raise EngineSick("its logits are not those of the start")

    def _give_memory_back(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding matrix."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Tensor:
        """Run the forward alone: raw logits [sequences that draw, vocab]."""
        drawing = [(segment.slot, _draws(segment)) for segment in batch.segments]
        return self._forward(self._step(batch, _last_rows(batch.works), drawing))

    @torch.inference_mode()
    def all_logits(self, batch: Batch) -> Tensor:
        """Run the forward for every token's logits [tokens, vocab], to compare with a reference."""
        segments = [(segment.slot, segment.count) for segment in batch.segments]
        return self._forward(self._step(batch, list(range(sum(count for _, count in segments))), segments))

    def _step(self, batch: Batch, kept: list[int], head: list[tuple[int, int]]) -> Step:
        works = batch.works
        ids = [token for work in works for token in work.sequence.tokens(work.start, work.count)]
        positions = [position for work in works for position in range(work.start, work.start + work.count)]
        return Step(
            ids=torch.tensor(ids, device=self.device),
            positions=torch.tensor(positions, device=self.device),
            kept=torch.tensor(kept, dtype=torch.long, device=self.device),
            attention=AttentionPlan(self._cache, works, self.device),
            lora=self.lora.plan([(segment.slot, segment.count) for segment in batch.segments]),
            head=self.lora.plan(head),
        )

    def check_integrity(self) -> None:
        """Raise AssertionError unless KV cache and slots are consistent."""
        self._cache.check_integrity()
        self.lora.check_integrity()

    @torch.inference_mode()
    def reference_logits(self, ids: list[int]) -> Tensor:
        """Logits [tokens, vocab] of one row by the model as transformers made it: eager, no cache, nothing of ours."""
        with self._forward.set_aside():
            self.model.set_attn_implementation("eager")
            try:
                logits: Tensor = self.model(torch.tensor([ids], device=self.device), use_cache=False).logits[0]
            finally:
                self.model.set_attn_implementation(attention.NAME)
        return logits


def _wants_memory(error: Exception) -> bool:
    """torch says it by a class of its own on CUDA, in words elsewhere."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words.casefold() in str(error).casefold() for words in _NO_MEMORY)


def _draws(segment: Segment) -> int:
    return sum(work.draws for work in segment.works)


def _last_rows(works: tuple[Work, ...]) -> list[int]:
    rows, end = [], 0
    for work in works:
        end += work.count
        if work.draws:
            rows.append(end - 1)
    return rows
