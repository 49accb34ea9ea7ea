"""Read a PEFT LoRA checkpoint and turn it into what a device slot holds, or say exactly why not.

Knows safetensors, PEFT's tensor names and the base model's modules; knows neither slots, caches nor Redis. Never loads
a pickle. Every tensor of the file is applied, or dropped because it equals the base, or the adapter is refused: one
that would answer differently from PEFT, or exactly like the base model, does not get in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorapool.shared.digest import MAX_HEADER_BYTES, WEIGHTS_NAME, digest_of, read_config, read_weights
from lorapool.shared.errors import AdapterUnavailable, CheckpointError
from lorapool.worker.adapters.peft_config import PeftConfig

PREFIX = "base_model.model."
PARTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_B.bias": "bias",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
NAMES = {part: suffix for suffix, part in reversed(PARTS.items())}
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
NORM_ROWS = 512  # rows of W + sBA that exist at once
TABLE_ROWS = 4096  # rows of an embedding that are hashed at once
NEUTRAL_GAIN = 1e-5  # a gain this close to 1 is DoRA's starting value, rounded


@dataclass(frozen=True)
class Outline:
    """What stands for a base weight where only its shape is: ``norms`` of its rows [out_features], and the ``digest``
    of an embedding or a head."""

    norms: Tensor
    digest: str = ""


@dataclass(frozen=True)
class ModuleSpec:
    """One module of the base model. ``weight`` is a view [out_features, in_features], also for Conv1D and embeddings
    (whose input is one of ``in_features`` ids). ``scale`` is what an embedding multiplies its rows with (Gemma). With
    an ``outline`` the weight has no content."""

    in_features: int
    out_features: int
    kind: Literal["linear", "conv1d", "embedding", "head"]
    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    outline: Outline | None = None


@dataclass(frozen=True)
class ModelSpec:
    """What an adapter is checked against: module path → shape, and the names that the base model goes by."""

    modules: Mapping[str, ModuleSpec]
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: nn.Module, names: Iterable[str] = ()) -> ModelSpec:
        """Look through a causal LM's modules. Weights are shared with the model, not copied."""
        ends = [getattr(model, f"get_{side}_embeddings", lambda: None)() for side in ("input", "output")]
        specs = {path: _module_spec(module, *ends) for path, module in model.named_modules()}
        return cls({path: spec for path, spec in specs.items() if spec is not None}, frozenset(names))

    def weight(self, path: str) -> Tensor:
        """The base weight [out_features, in_features] of a module."""
        return self.modules[path].weight


@dataclass(frozen=True)
class LoraWeights:
    """``y = gain ∘ out + offset + B·A·x``: one module's share of an adapter; x is one-hot for an embedding.

    A [r, in_features]; B [out_features, r] with scaling and gain multiplied in; gain and offset [out_features], None
    where they are 1 and 0. float32 (float64 under a float64 base).
    """

    A: Tensor
    B: Tensor
    gain: Tensor | None = None
    offset: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.A, self.B, self.gain, self.offset) if t is not None)


@dataclass(frozen=True)
class AdapterWeights:
    """A checked adapter in host memory. ``rank`` is the largest of its modules', ``nbytes`` counts all tensors."""

    modules: Mapping[str, LoraWeights]
    digest: str
    rank: int = field(init=False)
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", max((m.A.shape[0] for m in self.modules.values()), default=0))
        object.__setattr__(self, "nbytes", sum(m.nbytes for m in self.modules.values()))


@dataclass
class _Tensors:
    """The tensors that the file holds for one module."""

    a: Tensor | None = None
    b: Tensor | None = None
    embedding_a: Tensor | None = None
    embedding_b: Tensor | None = None
    bias: Tensor | None = None
    magnitude: Tensor | None = None


def load_checkpoint(folder: Path | str, spec: ModelSpec, max_rank: int, digest: str | None = None) -> AdapterWeights:
    """Read and check the adapter in ``folder``.

    ``digest`` is what the content must be, where it is already registered; it is computed from the very bytes that are
    used. Raises CheckpointError naming file, field or tensor, what it is, and what was expected; AdapterUnavailable for
    what is true of this worker only: its ``max_rank``, files that it cannot read.
    """
    fields_of = read_config(folder)
    config = PeftConfig.of(fields_of)
    _check_base_model(config.base_model, spec.names)
    data = read_weights(folder, largest_bytes(spec, max_rank))
    own_digest = digest_of(fields_of, data)
    if digest is not None and own_digest != digest:
        raise CheckpointError(
            f"{folder}: content digest is {own_digest}, registered as {digest}: the files have changed"
        )
    grouped = _group(_parse(data), spec)
    config.check_effort(len(grouped))
    modules = {path: _apply(path, parts, config, spec, max_rank) for path, parts in sorted(grouped.items())}
    if not any(_has_effect(module) for module in modules.values()):
        raise CheckpointError(f"{folder}: applies nothing: {len(modules)} modules, all without effect")
    return AdapterWeights(modules, own_digest)


def largest_bytes(spec: ModelSpec, max_rank: int) -> int:
    """No file that can be served is larger: every module at ``max_rank`` in float64, and copies of the base's ends."""
    modules = spec.modules.values()
    lora = sum((m.in_features + m.out_features) * max_rank + 2 * m.out_features for m in modules)
    ends = sum(m.weight.numel() for m in modules if m.kind in ("embedding", "head"))
    return 8 * (lora + ends) + MAX_HEADER_BYTES


def _module_spec(module: nn.Module, embedding: nn.Module | None, head: nn.Module | None) -> ModuleSpec | None:
    if isinstance(module, nn.Linear):
        out_features, in_features = module.weight.shape
        kind: Literal["head", "linear"] = "head" if module is head else "linear"
        return ModuleSpec(in_features, out_features, kind, module.weight.data, _bias(module))
    if isinstance(module, Conv1D):
        in_features, out_features = module.weight.shape
        return ModuleSpec(in_features, out_features, "conv1d", module.weight.data.T, _bias(module))
    if type(module) is nn.Embedding or (isinstance(module, nn.Embedding) and module is embedding):
        scale = float(getattr(module, "embed_scale", 1.0))
        return ModuleSpec(module.num_embeddings, module.embedding_dim, "embedding", module.weight.data.T, scale=scale)
    return None


def _bias(module: nn.Linear | Conv1D) -> Tensor | None:
    return None if module.bias is None else module.bias.data


def _check_base_model(name: str | None, served: frozenset[str]) -> None:
    """Refuse another base by its public name; a local path says nothing, and then the shapes decide alone."""
    if name is None or not served or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return
    if name.rpartition("/")[2].casefold() not in {known.rstrip("/").rpartition("/")[2].casefold() for known in served}:
        raise CheckpointError(
            f"made for the base model {name!r}, this worker serves {' / '.join(sorted(served))}; if both are the same, "
            f"correct base_model_name_or_path in adapter_config.json"
        )


def _parse(data: bytes) -> dict[str, Tensor]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise CheckpointError(f"{WEIGHTS_NAME}: not a safetensors file (header of {length:,} bytes in {len(data):,})")
    try:
        tensors: dict[str, Tensor] = dict(sorted(safetensors.torch.load(data).items()))  # its order is by chance
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{WEIGHTS_NAME}: not a whole safetensors file ({error})") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"tensor {name} is {tensor.dtype}: expected a float32, float16, bfloat16 or float64")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"tensor {name} holds NaN or infinity")
    return tensors


def _group(tensors: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, _Tensors]:
    """Sort the tensors by module; copies of base weights are compared and dropped; anything else is refused."""
    grouped: dict[str, _Tensors] = {}
    for name, tensor in tensors.items():
        path, part = _split(name)
        if part is not None:
            _put(grouped.setdefault(path, _Tensors()), part, tensor, name)
        elif not _is_base_copy(path, tensor, spec):
            raise CheckpointError(f"tensor {name} is not part of a LoRA adapter that can be served")
    if not grouped:
        raise CheckpointError(f"{WEIGHTS_NAME}: applies nothing: none of its {len(tensors)} tensors is a LoRA tensor")
    return grouped


def _put(parts: _Tensors, part: str, tensor: Tensor, name: str) -> None:
    if getattr(parts, part) is not None:
        raise CheckpointError(f"tensor {name} is there twice, under an older name too: which one counts is not clear")
    setattr(parts, part, tensor)


def _split(name: str) -> tuple[str, str | None]:
    """Tensor name → (module path, part); part is None for what is not LoRA's."""
    for suffix, part in PARTS.items():
        if name.startswith(PREFIX) and name.endswith(f".{suffix}"):
            return name[len(PREFIX) : -len(suffix) - 1], part
    return name.removeprefix(PREFIX).removesuffix(".weight").removesuffix(".base_layer"), None


def _is_base_copy(path: str, tensor: Tensor, spec: ModelSpec) -> bool:
    """Whether this is a saved base embedding or head, equal to the base's own. Raises CheckpointError if it differs."""
    module = spec.modules.get(path)
    if module is None or module.kind not in ("embedding", "head"):
        return False
    own = module.weight.T if module.kind == "embedding" else module.weight
    if tensor.shape != own.shape:
        raise CheckpointError(
            f"tensor {path}.weight has shape {_shape(tensor)}, the base model's is {_shape(own)}: added vocabulary is "
            f"not served"
        )
    if not _same_table(tensor.to(own.dtype), own, module.outline):
        raise CheckpointError(f"tensor {path}.weight is not the base model's: a trained {module.kind} is not served")
    return True


def _same_table(tensor: Tensor, own: Tensor, outline: Outline | None) -> bool:
    if outline is None:
        return torch.equal(tensor.to(own.device), own)
    return digest_of_table(tensor) == outline.digest


def digest_of_table(table: Tensor) -> str:
    """Of the values [rows, columns]: zeros of either sign are the same, as they are to ``torch.equal``."""
    digest = sha256()
    for first in range(0, table.shape[0], TABLE_ROWS):
        part = table[first : first + TABLE_ROWS].cpu() + 0.0
        digest.update(part.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _apply(path: str, parts: _Tensors, config: PeftConfig, spec: ModelSpec, max_rank: int) -> LoraWeights:
    module = spec.modules.get(path)
    if module is None:
        raise CheckpointError(f"the base model has no module {path!r} for LoRA: the adapter is for another base model")
    if not config.targets(path):
        raise CheckpointError(f"{path}: has LoRA tensors, but adapter_config.json does not choose this module")
    _check_parts(path, parts, config, module)
    stored_a, stored_b = _factors(parts, module)
    rank = _check_shapes(path, parts, module, config)
    if rank > max_rank:
        raise AdapterUnavailable(f"{path}: rank {rank} exceeds {max_rank}; start the worker with --max-rank {rank}")
    dtype = torch.promote_types(module.weight.dtype, torch.float32)
    a, scaling = stored_a.to(dtype), config.scaling(path)
    b = stored_b.to(dtype) * scaling
    gain = offset = None
    if parts.magnitude is not None:
        gain = parts.magnitude.to(dtype) / _norms(module, a, b)
        b = gain[:, None] * b
        offset = None if module.bias is None else (1 - gain) * module.bias.to("cpu", dtype)
    elif parts.bias is not None:
        offset = scaling * parts.bias.to(dtype)
    weights = LoraWeights(a.contiguous(), (b * module.scale).contiguous(), gain, offset)
    _check_result(path, weights)
    return weights


def _factors(parts: _Tensors, module: ModuleSpec) -> tuple[Tensor, Tensor]:
    """A and B, under the names that PEFT gives them for this kind of module."""
    a, b = (parts.embedding_a, parts.embedding_b) if module.kind == "embedding" else (parts.a, parts.b)
    assert a is not None and b is not None
    return a, b


def _check_parts(path: str, parts: _Tensors, config: PeftConfig, module: ModuleSpec) -> None:
    """What module and config ask for must be there, and nothing else: PEFT would ignore it, or start it at random."""
    looked_up = module.kind == "embedding"
    wanted = dict.fromkeys(("a", "b"), not looked_up) | dict.fromkeys(("embedding_a", "embedding_b"), looked_up)
    wanted |= {"bias": config.lora_bias, "magnitude": config.use_dora}
    for entry in fields(parts):
        there = getattr(parts, entry.name) is not None
        if there != wanted[entry.name]:
            has, asked = ("has", "does not ask for one") if there else ("has no", "asks for one")
            raise CheckpointError(
                f"{path}: {has} {NAMES[entry.name]}, and adapter_config.json {asked} on this {module.kind} module"
            )


def _check_shapes(path: str, parts: _Tensors, module: ModuleSpec, config: PeftConfig) -> int:
    """Check every tensor's shape against the module's; return the rank."""
    rank = config.rank(path)
    shapes = {
        "a": (rank, module.in_features),
        "b": (module.out_features, rank),
        "embedding_a": (rank, module.in_features),
        "embedding_b": (module.out_features, rank),
        "bias": (module.out_features,),
        "magnitude": (module.out_features,),
    }
    for part, shape in shapes.items():
        tensor = getattr(parts, part)
        if tensor is not None and tensor.shape != shape:
            raise CheckpointError(
                f"tensor {path}.{NAMES[part]} has shape {_shape(tensor)}, expected {list(shape)} "
                f"(rank {rank} by adapter_config.json, the base model's module is {module.in_features} → "
                f"{module.out_features})"
            )
    return rank


def _norms(module: ModuleSpec, a: Tensor, b: Tensor) -> Tensor:
    """‖W + B·A‖ of each row [out_features]; by an outline only where B·A is zero, elsewhere 1, which does to judge."""
    if module.outline is None:
        return row_norms(module.weight, a, b)
    starts = range(0, b.shape[0], NORM_ROWS)
    moved = torch.cat([(b[first : first + NORM_ROWS] @ a).any(dim=1) for first in starts])
    return torch.where(moved, 1, module.outline.norms.to(a.dtype))


def row_norms(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """‖W + B·A‖ of each output row [out_features], ``b`` being scaled already (DoRA, arXiv 2402.09353, section 4).

    On the weight's device, a few rows at a time: W + B·A never exists whole. The result is on the CPU.
    """
    a, b = a.to(weight.device), b.to(weight.device)
    chunks = range(0, weight.shape[0], NORM_ROWS)
    rows = (torch.addmm(weight[i : i + NORM_ROWS].to(a.dtype), b[i : i + NORM_ROWS], a) for i in chunks)
    return torch.cat([torch.linalg.vector_norm(row, dim=1) for row in rows]).cpu()


def _check_result(path: str, weights: LoraWeights) -> None:
    for tensor in (weights.A, weights.B, weights.gain, weights.offset):
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: not finite once scaled (a scaling, or a DoRA norm, out of range)")


def _has_effect(module: LoraWeights) -> bool:
    """Whether the module's output can differ at all from the base model's."""
    product = bool(module.A.any()) and bool(module.B.any())
    shifted = module.offset is not None and bool((module.offset.abs() > NEUTRAL_GAIN).any())
    scaled = module.gain is not None and bool(((module.gain - 1).abs() > NEUTRAL_GAIN).any())
    return product or shifted or scaled


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
