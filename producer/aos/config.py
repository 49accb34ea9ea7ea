"""LoRAxConfig and MLConfig: what AOS lets one configure, with its names and defaults, and what each setting does here.

A setting acts, or ``ignored`` says why it does not. What AOS never had (where Redis is, whether to start workers) is
added at the end. Reads the environment in ``MLConfig.from_env`` alone; connects to nothing.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Self

from lorapool.producer.aos.errors import IgnoredSetting
from lorapool.shared.errors import InvalidRequest

DEFAULT_BASE_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
_CHOICES = {
    "adapter_source": ("local", "s3", "azure_blob", "huggingface"),
    "dtype": ("float16", "bfloat16", "float32"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR"),
    "unknown_role": ("error", "base"),
    "prompt_as": ("text", "message"),
}
_SCHEMES = {"s3": "s3://", "azure_blob": "az://", "huggingface": "hf://"}
_AT_LEAST_ONE = (
    "max_concurrent_requests", "max_batch_size", "max_sequence_length", "adapter_cache_size", "tensor_parallel_size",
)  # fmt: skip
_ABOVE_ZERO = ("start_timeout_s", "request_timeout_s", "drain_timeout_s")
_FLEET = "it acts on workers that this process spawns (spawn_local); those of the fleet have their own {}"
_NO_DOOR = "a facade opens a gateway beside workers that it spawns (spawn_local); the fleet's is `lorapool gateway`"
_IGNORED = {
    "use_flash_attention": "the engine chooses its attention by device",
    "use_paged_attention": "the engine chooses its KV cache by device",
    "swap_space_gb": "the engine swaps no KV cache; a worker's --host-cache-bytes bounds adapters in host memory",
    "tensor_parallel_size": "a worker owns one device: start more workers instead",
    "enable_metrics": "counters are always kept, in Redis: `lorapool stats`",
    "metrics_port": "the facade opens no port: counters are in Redis, `lorapool stats`",
}
_SPAWNED = {
    "adapter_cache_size": "--slots",
    "max_batch_size": "--max-batch",
    "max_sequence_length": "--max-model-len",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "dtype": "--dtype",
    "log_level": "--log-level",
}


@dataclass
class LoRAxConfig:
    """The server's settings; the first nineteen are those of AOS, with its defaults.

    ``base_model`` is what the pool must serve: another one is refused. ``max_concurrent_requests`` bounds what this
    facade has under way; what exceeds it waits. ``adapter_base_path`` is where relative adapter paths lie.
    Beside workers of its own it opens a gateway on ``host`` and ``port``, without keys for this machine alone.
    ``spawn_local`` workers are started as subprocesses, with the cache size, batch size, memory share, sequence length
    and dtype given here (dtype only if it was set: a worker knows its device's best). Raises InvalidRequest.
    """

    base_model: str = DEFAULT_BASE_MODEL
    base_model_revision: str | None = None
    host: str = "0.0.0.0"  # noqa: S104 - AOS's default; this machine alone until the pool has keys
    port: int = 8080
    max_concurrent_requests: int = 128
    max_batch_size: int = 32
    max_sequence_length: int = 4096
    adapter_cache_size: int = 100
    adapter_source: str = "local"
    adapter_base_path: str = "adapters"
    use_flash_attention: bool = True
    use_paged_attention: bool = True
    tensor_parallel_size: int = 1
    dtype: str = "float16"
    gpu_memory_utilization: float = 0.9
    swap_space_gb: int = 20
    enable_metrics: bool = True
    metrics_port: int = 9090
    log_level: str = "INFO"
    # not in AOS
    redis_url: str | None = field(default=None, repr=False)  # None: LORAPOOL_REDIS_URL; may hold a password
    pool: str | None = None  # None: LORAPOOL_POOL
    spawn_local: int = 0
    worker_command: tuple[str, ...] = ("lorapool-worker",)
    start_timeout_s: float = 60.0
    request_timeout_s: float = 300.0
    drain_timeout_s: float = 30.0
    unknown_role: str = "error"  # or "base": the base model answers, and the result says so
    prompt_as: str = "text"  # or "message": through the adapter's prompt format or the model's chat template
    explicit: frozenset[str] = field(default=frozenset(), repr=False, compare=False)  # set on purpose, to any value

    def __post_init__(self) -> None:
        for name, values in _CHOICES.items():
            _check(name, getattr(self, name), getattr(self, name) in values, f"one of {', '.join(values)}")
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            _check(name, value, type(value) is int and value >= 1, "a whole number, 1 or more")
        for name in _ABOVE_ZERO:
            _check(name, getattr(self, name), getattr(self, name) > 0, "seconds, above 0")
        _check("base_model", self.base_model, bool(self.base_model), "a hub id or a folder")
        share = self.gpu_memory_utilization
        _check("gpu_memory_utilization", share, 0 < share <= 1, "a share, above 0 and at most 1")
        _check("spawn_local", self.spawn_local, self.spawn_local >= 0, "a number of workers, 0 or more")

    def is_set(self, name: str) -> bool:
        """Whether somebody chose the value: it is not the default, or was given explicitly."""
        return name in self.explicit or getattr(self, name) != _DEFAULTS[name]

    @property
    def remote_base(self) -> str | None:
        """The URI that relative adapter paths lie below; None for local folders."""
        if self.adapter_source == "local":
            return None
        base = self.adapter_base_path.rstrip("/")
        return base if "://" in base else f"{_SCHEMES[self.adapter_source]}{base.lstrip('/')}"

    def ignored(self) -> Iterator[str]:
        """One sentence for each setting that was chosen and has no effect."""
        reasons = dict(_IGNORED)
        if not self.spawn_local:
            reasons |= {name: _FLEET.format(flag) for name, flag in _SPAWNED.items()}
            reasons |= dict.fromkeys(("host", "port"), _NO_DOOR)
        for name, reason in reasons.items():
            if self.is_set(name):
                yield f"{name} = {getattr(self, name)!r} has no effect: {reason}"

    def worker_flags(self) -> list[str]:
        """The flags of spawned workers, besides where the pool is."""
        model = self.base_model
        if self.base_model_revision and "@" not in model:
            model = f"{model}@{self.base_model_revision}"
        flags = ["--base-model", model]
        for name, flag in _SPAWNED.items():
            value = getattr(self, name)
            if name in {"adapter_cache_size", "max_batch_size", "gpu_memory_utilization"} or self.is_set(name):
                flags += [flag, str(value).lower()]
        return flags


_DEFAULTS = {each.name: each.default for each in dataclasses.fields(LoRAxConfig)}


@dataclass
class MLConfig:
    """AOS's configuration of all its machine learning. Here ``enable_lorax``, the ``lorax_…`` and
    ``model_storage_path`` act; training, DPO and MLflow stay outside lorapool and their settings are only carried."""

    enable_training: bool = True
    model_storage_path: str = "models"
    training_data_path: str = "training_data"
    max_training_jobs: int = 5
    default_model_type: str = "lora"
    enable_dpo: bool = True
    dpo_beta: float = 0.1
    dpo_learning_rate: float = 5e-5
    dpo_batch_size: int = 4
    dpo_epochs: int = 3
    preference_data_path: str = "preference_data"
    enable_mlflow: bool = True
    mlflow_tracking_uri: str = ""
    mlflow_experiment_prefix: str = "aos_dpo"
    enable_lorax: bool = True
    lorax_base_model: str = DEFAULT_BASE_MODEL
    lorax_host: str = "0.0.0.0"  # noqa: S104 - AOS's default; this machine alone until the pool has keys
    lorax_port: int = 8080
    lorax_adapter_cache_size: int = 100
    lorax_max_concurrent_requests: int = 128
    lorax_max_batch_size: int = 32
    lorax_gpu_memory_utilization: float = 0.9
    # not in AOS; see LoRAxConfig
    lorax_redis_url: str | None = field(default=None, repr=False)
    lorax_pool: str | None = None
    lorax_spawn_local: int = 0
    lorax_worker_command: tuple[str, ...] = ("lorapool-worker",)
    lorax_start_timeout_s: float = 60.0
    lorax_request_timeout_s: float = 300.0
    lorax_drain_timeout_s: float = 30.0
    lorax_unknown_role: str = "error"
    lorax_prompt_as: str = "text"
    explicit: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """From the AOS_* variables; warns (IgnoredSetting) of an AOS_LORAX_* that nothing reads.

        Raises InvalidRequest naming a variable whose value is not understood.
        """
        given = os.environ if environment is None else environment
        _warn_of_unknown(given)
        values: dict[str, Any] = {}
        for variable, (name, read) in _VARIABLES.items():
            if variable in given:
                values[name] = _read(variable, given[variable], read)
        return cls(**values, explicit=frozenset(values))

    def lorax(self) -> LoRAxConfig:
        """The server's part of it."""
        own = {each.name for each in dataclasses.fields(self) if each.name.startswith("lorax_")}
        chosen = frozenset(name.removeprefix("lorax_") for name in self.explicit & own)
        fields = {name.removeprefix("lorax_"): getattr(self, name) for name in own}
        return LoRAxConfig(**fields, adapter_base_path=self.model_storage_path, explicit=chosen)


def _check(name: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise InvalidRequest(f"{name} = {value!r}: expected {expected}")


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.strip().lower() not in known:
        raise ValueError("expected true or false")
    return known[text.strip().lower()]


def _read(variable: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise InvalidRequest(f"{variable} = {text!r} is not understood: {error}") from None


def _warn_of_unknown(environment: Mapping[str, str]) -> None:
    for name in sorted(environment):
        if name.startswith("AOS_LORAX_") and name not in _VARIABLES:
            near = get_close_matches(name, _VARIABLES, n=1)
            hint = f"did you mean {near[0]}?" if near else "AOS has no such variable"
            warnings.warn(f"{name} has no effect: {hint}", IgnoredSetting, stacklevel=3)


_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "AOS_ENABLE_ML_TRAINING": ("enable_training", _boolean),
    "AOS_MODEL_STORAGE_PATH": ("model_storage_path", str),
    "AOS_TRAINING_DATA_PATH": ("training_data_path", str),
    "AOS_MAX_TRAINING_JOBS": ("max_training_jobs", int),
    "AOS_DEFAULT_MODEL_TYPE": ("default_model_type", str),
    "AOS_ENABLE_DPO": ("enable_dpo", _boolean),
    "AOS_DPO_BETA": ("dpo_beta", float),
    "AOS_DPO_LEARNING_RATE": ("dpo_learning_rate", float),
    "AOS_DPO_BATCH_SIZE": ("dpo_batch_size", int),
    "AOS_DPO_EPOCHS": ("dpo_epochs", int),
    "AOS_PREFERENCE_DATA_PATH": ("preference_data_path", str),
    "AOS_ENABLE_MLFLOW": ("enable_mlflow", _boolean),
    "AOS_MLFLOW_TRACKING_URI": ("mlflow_tracking_uri", str),
    "AOS_MLFLOW_EXPERIMENT_PREFIX": ("mlflow_experiment_prefix", str),
    "AOS_ENABLE_LORAX": ("enable_lorax", _boolean),
    "AOS_LORAX_BASE_MODEL": ("lorax_base_model", str),
    "AOS_LORAX_HOST": ("lorax_host", str),
    "AOS_LORAX_PORT": ("lorax_port", int),
    "AOS_LORAX_ADAPTER_CACHE_SIZE": ("lorax_adapter_cache_size", int),
    "AOS_LORAX_MAX_CONCURRENT_REQUESTS": ("lorax_max_concurrent_requests", int),
    "AOS_LORAX_MAX_BATCH_SIZE": ("lorax_max_batch_size", int),
    "AOS_LORAX_GPU_MEMORY_UTILIZATION": ("lorax_gpu_memory_utilization", float),
    "AOS_LORAX_REDIS_URL": ("lorax_redis_url", str),
    "AOS_LORAX_POOL": ("lorax_pool", str),
    "AOS_LORAX_SPAWN_LOCAL": ("lorax_spawn_local", int),
    "AOS_LORAX_WORKER_COMMAND": ("lorax_worker_command", lambda text: tuple(text.split())),
    "AOS_LORAX_START_TIMEOUT": ("lorax_start_timeout_s", float),
    "AOS_LORAX_REQUEST_TIMEOUT": ("lorax_request_timeout_s", float),
    "AOS_LORAX_DRAIN_TIMEOUT": ("lorax_drain_timeout_s", float),
    "AOS_LORAX_UNKNOWN_ROLE": ("lorax_unknown_role", str),
    "AOS_LORAX_PROMPT_AS": ("lorax_prompt_as", str),
}
