"""An outline of the base model, as plain data: all that judging an adapter needs of it, without its weights.

Shapes and kinds of the modules; of embeddings and heads the digest, to know a saved copy; of each module the norms of
its rows, which DoRA divides by. Made where the model is, read by the judge in a process of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lorapool.worker.adapters.checkpoint import ModelSpec, ModuleSpec, Outline, digest_of_table, largest_bytes

ROWS = 64  # widened at once


def packed(spec: ModelSpec, max_rank: int) -> dict[str, Any]:
    """Ready for JSON. ``largest_bytes``: of a file that can be served at ``max_rank``."""
    digests: dict[int, str] = {}  # by where the data lies: tied modules share it
    with _one_thread():
        modules = {path: _packed(module, digests) for path, module in spec.modules.items()}
    limits = {"max_rank": max_rank, "largest_bytes": largest_bytes(spec, max_rank)}
    return {"modules": modules, "names": sorted(spec.names), **limits}


def unpacked(data: Mapping[str, Any]) -> ModelSpec:
    """What ``load_checkpoint`` checks against: weights that have a shape and a dtype, and no content."""
    modules = {path: _unpacked(module) for path, module in data["modules"].items()}
    return ModelSpec(modules, frozenset(data["names"]))


def _packed(module: ModuleSpec, digests: dict[int, str]) -> dict[str, Any]:
    weight = module.weight
    data = {
        "shape": [module.in_features, module.out_features],
        "kind": module.kind,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "bias": module.bias is not None,
        "scale": module.scale,
        "norms": base64.b64encode(_row_norms(module).numpy().tobytes()).decode(),
    }
    if module.kind in ("embedding", "head"):
        place = weight.data_ptr()
        if place not in digests:
            digests[place] = digest_of_table(weight.T if module.kind == "embedding" else weight)
        data["digest"] = digests[place]
    return data


def _row_norms(module: ModuleSpec) -> Tensor:
    """‖W‖ of each row [out_features], a few rows widened at a time; of an embedding, whose rows lie across its table
    [in_features, out_features], by adding up squares."""
    wide = torch.promote_types(module.weight.dtype, torch.float32)
    table = module.weight.T if module.kind == "embedding" else module.weight
    parts = (table[first : first + ROWS].to(wide) for first in range(0, table.shape[0], ROWS))
    if module.kind != "embedding":
        return torch.cat([torch.linalg.vector_norm(part, dim=1) for part in parts]).cpu()
    squares = torch.zeros(module.out_features, dtype=wide, device=table.device)
    for part in parts:
        squares += torch.ones(part.shape[0], dtype=wide, device=table.device) @ part.square()
    return squares.sqrt().cpu()


@contextmanager
def _one_thread() -> Iterator[None]:
    """A team of threads costs more than such small pieces take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _unpacked(data: Mapping[str, Any]) -> ModuleSpec:
    in_features, out_features = data["shape"]
    dtype: torch.dtype = getattr(torch, data["dtype"])
    wide = torch.promote_types(dtype, torch.float32)
    norms = torch.frombuffer(bytearray(base64.b64decode(data["norms"])), dtype=wide)
    return ModuleSpec(
        in_features,
        out_features,
        data["kind"],
        torch.empty(out_features, in_features, dtype=dtype, device="meta"),
        torch.zeros(out_features, dtype=dtype) if data["bias"] else None,
        data["scale"],
        Outline(norms, data.get("digest", "")),
    )
