"""From a checkpoint folder to a runner that passed the self-check.

Knows the order: what config.json says is checked before weights are read; a flat forward that fails the self-check
gives way to Hugging Face's modules; what fails with those is not served.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as hf_logging

from lorapool.shared.errors import BaseModelError
from lorapool.worker.native import attention
from lorapool.worker.native.runner import ModelRunner
from lorapool.worker.native.self_check import check

_ROPE_BY_LENGTH = ("dynamic", "longrope")
log = structlog.get_logger()


def load_runner(
    folder: Path | str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    max_model_len: int | None = None,
    slots: int = 8,
    max_rank: int = 64,
    kv_cache_bytes: int = 2 << 30,
    **settings: Any,
) -> ModelRunner:
    """Load a checkpoint folder (safetensors); ``settings`` are the runner's.

    Raises BaseModelError with the reason if it cannot be served.
    """
    config, limit = _config(folder, max_model_len)
    model = _model(folder, config, device, dtype)
    sizes = {"slots": slots, "max_rank": max_rank, "max_model_len": limit, "kv_cache_bytes": kv_cache_bytes}
    return checked_runner(model, **sizes, **settings)


def checked_runner(model: Any, **settings: Any) -> ModelRunner:
    """A runner with a forward that passed: the flat one, else Hugging Face's. Raises BaseModelError where none did."""
    runner = ModelRunner(model, **settings)
    if runner.not_flat is None:
        try:
            check(runner)
        except BaseModelError as error:
            log.warning("the flat forward gives way to Hugging Face's modules", reason=str(error))
            runner = ModelRunner(model, **{**settings, "flat": False})
        else:
            return runner
    else:
        log.info("computing with Hugging Face's modules", unknown=runner.not_flat)
    check(runner)
    return runner


def _model(folder: Path | str, config: Any, device: str, dtype: str) -> Any:
    attention.register()
    hf_logging.disable_progress_bar()  # it would be drawn into the log; the caller shows its own
    try:
        return AutoModelForCausalLM.from_pretrained(
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
