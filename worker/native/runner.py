"""ModelRunner: the base model, one forward a step.

Turns a Batch into one flat row of tokens, runs the unchanged Hugging Face model over it with our attention and the
adapters' computation hooked into its modules (names intact), and has the last rows sampled. Owns the KV cache and the
LoRA slots. A self-check at load refuses a model whose rows depend on their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as hf_logging

from lorapool.shared.errors import BaseModelError
from lorapool.worker.adapters.checkpoint import ModelSpec
from lorapool.worker.engine.port import EngineSick, OutOfMemory
from lorapool.worker.engine.sequence import Batch, Drawn, Segment, Work
from lorapool.worker.native import attention
from lorapool.worker.native.attention import AttentionPlan
from lorapool.worker.native.kv_cache import KvCache, LayerShape
from lorapool.worker.native.linear import products
from lorapool.worker.native.lora import LoraPlan, LoraSlots
from lorapool.worker.native.replacements import replacements
from lorapool.worker.native.sampler import Sampler
from lorapool.worker.native.self_check import check, check_windows

_ROPE_BY_LENGTH = ("dynamic", "longrope")
_PROBE = (1, 7, 13, 29)
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class ModelRunner:
    """Implements the engine's Runner. Not thread safe: one thread drives it."""

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
    ) -> None:
        first = next(model.parameters())
        self.model: Any = model.eval()
        self.device, self.dtype = first.device, first.dtype
        self.max_model_len = max_model_len
        self.spec = ModelSpec.of(model, names)
        self._sampler = Sampler()
        self._plan: LoraPlan | None = None
        self._head_plan: LoraPlan | None = None
        self._wiped: set[str] = set()
        self._wrapped: list[nn.Module] = []
        self._expected: Tensor | None = None  # logits of the probe, as they were first
        layers, shared = _probe(model, self.device)
        self._cache = KvCache(
            layers, max_tokens=max_model_len, budget_bytes=kv_cache_bytes, dtype=self.dtype, device=self.device
        )
        embeddings = [path for path, module in self.spec.modules.items() if module.kind == "embedding"]
        self.lora = LoraSlots(slots, max_rank, lora_dtype or self.dtype, self.device, shared, embeddings)
        self._adapt(shared)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        slots: int = 8,
        max_rank: int = 64,
        max_model_len: int | None = None,
        kv_cache_bytes: int = 2 << 30,
        names: Iterable[str] = (),
        self_check: bool = True,
    ) -> ModelRunner:
        """Load a checkpoint folder (safetensors). ``names``: what adapters may call this base model.

        Raises BaseModelError with the reason if it cannot be served."""
        config, limit = _config(folder, max_model_len)
        attention.register()
        hf_logging.disable_progress_bar()  # it would be drawn into the log; the caller shows its own
        try:
            model = AutoModelForCausalLM.from_pretrained(
                str(folder),
                config=config,
                dtype=getattr(torch, dtype),
                attn_implementation=attention.NAME,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            ).to(device)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise BaseModelError(f"cannot load a base model from {folder}: {error}") from error
        runner = cls(
            model,
            slots=slots,
            max_rank=max_rank,
            max_model_len=limit,
            kv_cache_bytes=kv_cache_bytes,
            names=names,
        )
        if self_check:
            runner.self_check()
        return runner

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
            drawn = self._sampler.draw(logits, rows) if rows else []
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
        self._head_plan = self.lora.plan([(segment.slot, _draws(segment)) for segment in batch.segments])
        return self._forward(batch, _last_rows(batch.works))

    @torch.inference_mode()
    def all_logits(self, batch: Batch) -> Tensor:
        """Run the forward for every token's logits [tokens, vocab], to compare with a reference."""
        segments = [(segment.slot, segment.count) for segment in batch.segments]
        self._head_plan = self.lora.plan(segments)
        return self._forward(batch, list(range(sum(count for _, count in segments))))

    def _forward(self, batch: Batch, rows: list[int]) -> Tensor:
        works = batch.works
        ids = [token for work in works for token in work.sequence.tokens(work.start, work.count)]
        positions = [position for work in works for position in range(work.start, work.start + work.count)]
        plan = AttentionPlan(self._cache, works, self.device)
        self._plan = self.lora.plan([(segment.slot, segment.count) for segment in batch.segments])
        logits: Tensor = self.model(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            use_cache=False,
            logits_to_keep=torch.tensor(rows, dtype=torch.long, device=self.device),
            plan=plan,
        ).logits[0]
        return logits

    def check_integrity(self) -> None:
        """Raise AssertionError unless KV cache and slots are consistent."""
        self._cache.check_integrity()
        self.lora.check_integrity()

    def self_check(self) -> None:
        """Refuse a model whose logits in a ragged batch with decode steps are not those of its own plain forward."""
        check(self)

    @torch.inference_mode()
    def reference_logits(self, ids: list[int]) -> Tensor:
        """Logits [tokens, vocab] of one row by the model as transformers made it: eager, no cache, nothing of ours."""
        ours = {module: vars(module).pop("forward") for module in self._wrapped}
        self.model.set_attn_implementation("eager")
        try:
            logits: Tensor = self.model(torch.tensor([ids], device=self.device), use_cache=False).logits[0]
        finally:
            self.model.set_attn_implementation(attention.NAME)
            for module, forward in ours.items():
                module.forward = forward
        return logits

    def _adapt(self, shared: list[list[str]]) -> None:
        """Let the adapters' part be added behind every linear module and embedding; names and weights stay."""
        head, modules = self.model.get_output_embeddings(), _linear(self.model)
        self._head = {path for path, module in modules.items() if module is head}
        for path, product in products(modules, shared, self._adapted).items():
            module: Any = modules[path]
            module.forward = product
            self._wrapped.append(module)
        for module, forward in replacements(self.model).items():
            module.forward = forward
            self._wrapped.append(module)
        for path, spec in self.spec.modules.items():
            if spec.kind == "embedding":
                table: Any = self.model.get_submodule(path)
                table.forward = self._embedded(path, table.forward)
                self._wrapped.append(table)

    def _adapted(self, paths: Sequence[str], x: Tensor, outs: list[Tensor]) -> None:
        """Add the adapters' part to what modules that read ``x`` gave."""
        plan = self._head_plan if paths[0] in self._head else self._plan
        if plan is not None and plan.parts:
            flat = [out.view(-1, out.shape[-1]) for out in outs]
            self.lora.apply(paths, x.reshape(-1, x.shape[-1]), flat, plan)

    def _embedded(self, path: str, base: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def forward(ids: Tensor) -> Tensor:
            out = base(ids)
            if self._plan is not None and self._plan.segments:
                self.lora.embed(path, ids.reshape(-1), out.view(-1, out.shape[-1]), self._plan)
            return out

        return forward


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


def _config(folder: Path | str, max_model_len: int | None) -> tuple[Any, int]:
    """Read config.json; return it with the context length to serve."""
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(f"no usable config.json in {folder}: {error}") from error
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = {str(part.get("rope_type")) for part in (rope, *rope.values()) if isinstance(part, dict)}
    if kinds & set(_ROPE_BY_LENGTH):
        raise BaseModelError(
            f"{folder}: rope type {'/'.join(sorted(kinds & set(_ROPE_BY_LENGTH)))} makes a row's angles depend on the "
            "longest row beside it: not served"
        )
    own = getattr(text, "max_position_embeddings", None)
    limit = max_model_len or own or 4096
    if own is not None and limit > own:
        raise BaseModelError(f"max_model_len {limit} exceeds the model's own {own} positions")
    return config, limit


def _linear(model: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


class _Probe:
    """Stands in for the AttentionPlan once, to learn each layer's key and value shapes."""

    def __init__(self) -> None:
        self.layers: dict[int, LayerShape] = {}
        self.windows: dict[int, int | None] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, _scale: float, window: int | None, _cap: Any
    ) -> Tensor:
        self.layers[layer] = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        self.windows[layer] = window
        return query.new_zeros(*query.shape[:2], value.shape[2])


@torch.inference_mode()
def _probe(model: Any, device: torch.device) -> tuple[tuple[LayerShape, ...], list[list[str]]]:
    """Run one token: each attention layer's shape, and which linear modules read the very same input."""
    probe, inputs = _Probe(), []

    def record(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: inputs.append((path, args[0]))

    hooks = [module.register_forward_pre_hook(record(path)) for path, module in _linear(model).items()]
    try:
        model(torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False, plan=probe)
    finally:
        for hook in hooks:
            hook.remove()
    config = model.config.get_text_config()
    expected = config.num_hidden_layers
    if sorted(probe.layers) != list(range(expected)):
        raise BaseModelError(
            f"{type(model).__name__}: {len(probe.layers)} of {expected} layers use transformers' attention interface: "
            "not served"
        )
    check_windows(config, probe.windows)
    groups: dict[int, list[str]] = {}
    for path, x in inputs:
        groups.setdefault(id(x), []).append(path)
    return tuple(probe.layers[index] for index in range(expected)), list(groups.values())
