"""The configuration cases of AOS's own tests, under their names, and what each variable and setting does."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from lorapool.producer import InvalidRequest
from lorapool.producer.aos import IgnoredSetting, LoRAxConfig, LoRAxServer, MLConfig, MLPipelineManager
from lorapool.producer.aos.base_model import served_instead
from lorapool.shared.catalog.catalog import PoolConfig


def test_default_config() -> None:
    """AOS's defaults; the base model is the 8B one, as in its MLConfig."""
    config = LoRAxConfig()
    assert "meta-llama/Llama-3.1-8B-Instruct" == config.base_model == MLConfig().lorax_base_model
    assert (8080, 100, 128, 32) == (
        config.port,
        config.adapter_cache_size,
        config.max_concurrent_requests,
        config.max_batch_size,
    )


def test_custom_config() -> None:
    """What is given holds."""
    config = LoRAxConfig(base_model="custom-model", port=9090, adapter_cache_size=50)
    assert ("custom-model", 9090, 50) == (config.base_model, config.port, config.adapter_cache_size)


VARIABLES: dict[str, tuple[str, str, Any]] = {
    "AOS_ENABLE_LORAX": ("enable_lorax", "false", False),
    "AOS_LORAX_BASE_MODEL": ("lorax_base_model", "org/model", "org/model"),
    "AOS_LORAX_HOST": ("lorax_host", "127.0.0.1", "127.0.0.1"),
    "AOS_LORAX_PORT": ("lorax_port", "9000", 9000),
    "AOS_LORAX_ADAPTER_CACHE_SIZE": ("lorax_adapter_cache_size", "7", 7),
    "AOS_LORAX_MAX_CONCURRENT_REQUESTS": ("lorax_max_concurrent_requests", "9", 9),
    "AOS_LORAX_MAX_BATCH_SIZE": ("lorax_max_batch_size", "5", 5),
    "AOS_LORAX_GPU_MEMORY_UTILIZATION": ("lorax_gpu_memory_utilization", "0.5", 0.5),
    "AOS_MODEL_STORAGE_PATH": ("model_storage_path", "/adapters", "/adapters"),
    "AOS_ENABLE_ML_TRAINING": ("enable_training", "False", False),
    "AOS_MAX_TRAINING_JOBS": ("max_training_jobs", "2", 2),
    "AOS_ENABLE_DPO": ("enable_dpo", "no", False),
    "AOS_DPO_BETA": ("dpo_beta", "0.2", 0.2),
    "AOS_LORAX_REDIS_URL": ("lorax_redis_url", "redis://r", "redis://r"),
    "AOS_LORAX_POOL": ("lorax_pool", "board", "board"),
    "AOS_LORAX_SPAWN_LOCAL": ("lorax_spawn_local", "2", 2),
    "AOS_LORAX_WORKER_COMMAND": ("lorax_worker_command", "one-gpu lorapool-worker", ("one-gpu", "lorapool-worker")),
    "AOS_LORAX_START_TIMEOUT": ("lorax_start_timeout_s", "600", 600.0),
    "AOS_LORAX_REQUEST_TIMEOUT": ("lorax_request_timeout_s", "12.5", 12.5),
    "AOS_LORAX_DRAIN_TIMEOUT": ("lorax_drain_timeout_s", "3", 3.0),
    "AOS_LORAX_UNKNOWN_ROLE": ("lorax_unknown_role", "base", "base"),
    "AOS_LORAX_PROMPT_AS": ("lorax_prompt_as", "message", "message"),
}


def test_every_variable_is_read() -> None:
    """Each AOS_* variable alone sets its field and no other; none leaves the defaults."""
    assert MLConfig() == MLConfig.from_env({})
    for variable, (name, text, value) in VARIABLES.items():
        config = MLConfig.from_env({variable: text})
        assert MLConfig(**{name: value}) == config
        assert frozenset({name}) == config.explicit


def test_the_variables_of_the_environment_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument it is the process's own environment."""
    monkeypatch.setenv("AOS_LORAX_BASE_MODEL", "org/of-the-environment")
    assert "org/of-the-environment" == MLConfig.from_env().lorax().base_model


def test_a_variable_reaches_the_server() -> None:
    """What MLConfig says of LoRAx is what the server gets; AOS_MODEL_STORAGE_PATH is where adapters lie."""
    given = {name: text for name, (_, text, _) in VARIABLES.items()} | {"AOS_ENABLE_LORAX": "true"}
    lorax = MLConfig.from_env(given).lorax()
    for name, _, value in VARIABLES.values():
        if name.startswith("lorax_"):
            assert value == getattr(lorax, name.removeprefix("lorax_"))
    assert "/adapters" == lorax.adapter_base_path


@pytest.mark.parametrize(
    ("variable", "text"), [("AOS_LORAX_PORT", "eighty"), ("AOS_ENABLE_LORAX", "maybe"), ("AOS_DPO_BETA", "")]
)
def test_a_value_not_understood_is_named(variable: str, text: str) -> None:
    """Variable and value."""
    with pytest.raises(InvalidRequest, match=f"{variable} = '{text}'"):
        MLConfig.from_env({variable: text})


@pytest.mark.parametrize(
    "setting",
    [
        {"max_concurrent_requests": 0},
        {"max_batch_size": 1.5},
        {"adapter_source": "ftp"},
        {"dtype": "int4"},
        {"gpu_memory_utilization": 1.5},
        {"spawn_local": -1},
        {"request_timeout_s": 0},
        {"unknown_role": "guess"},
        {"base_model": ""},
    ],
)
def test_an_impossible_setting_is_refused(setting: dict[str, Any]) -> None:
    """By name and value."""
    [(name, value)] = setting.items()
    with pytest.raises(InvalidRequest, match=f"{name} = {value!r}: expected"):
        LoRAxConfig(**setting)


def test_a_mistyped_variable_is_pointed_out() -> None:
    """With the one that was probably meant."""
    with pytest.warns(IgnoredSetting, match="AOS_LORAX_BASEMODEL has no effect: did you mean AOS_LORAX_BASE_MODEL"):
        MLConfig.from_env({"AOS_LORAX_BASEMODEL": "x"})


ALWAYS = {
    "use_flash_attention": (False, "the engine chooses"),
    "use_paged_attention": (False, "the engine chooses"),
    "swap_space_gb": (8, "swaps no KV cache"),
    "tensor_parallel_size": (2, "start more workers"),
    "enable_metrics": (False, "lorapool stats"),
    "metrics_port": (9999, "lorapool stats"),
}
IN_A_FLEET = {
    "host": ("127.0.0.1", "lorapool gateway"),
    "port": (9000, "lorapool gateway"),
    "adapter_cache_size": (5, "--slots"),
    "max_batch_size": (5, "--max-batch"),
    "max_sequence_length": (512, "--max-model-len"),
    "gpu_memory_utilization": (0.5, "--gpu-memory-utilization"),
    "dtype": ("bfloat16", "--dtype"),
    "log_level": ("DEBUG", "--log-level"),
}


@pytest.mark.parametrize(("name", "value", "reason"), [(n, *rest) for n, rest in (ALWAYS | IN_A_FLEET).items()])
def test_a_setting_without_effect_says_so(name: str, value: object, reason: str) -> None:
    """Chosen on purpose, it warns with its name, its value and the reason."""
    with pytest.warns(IgnoredSetting) as warned:
        LoRAxServer(LoRAxConfig(**{name: value}))
    [warning] = warned
    assert str(warning.message).startswith(f"{name} = {value!r} has no effect: ")
    assert reason in str(warning.message)


def test_a_variable_without_effect_says_so_at_its_default_too() -> None:
    """AOS_LORAX_PORT=8080 is AOS's default, and still somebody's wish."""
    with pytest.warns(IgnoredSetting, match="port = 8080 has no effect: a facade opens a gateway beside"):
        MLPipelineManager(MLConfig.from_env({"AOS_LORAX_PORT": "8080"}))


def test_defaults_warn_of_nothing() -> None:
    """Who chose nothing hears nothing; with workers of its own, what reaches them has an effect."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoRAxServer(LoRAxConfig())
        LoRAxServer(LoRAxConfig(spawn_local=1, **{name: value for name, (value, _) in IN_A_FLEET.items()}))


def test_spawned_workers_are_told_the_settings() -> None:
    """As their own flags; what a worker knows better is left to it unless chosen."""
    flags = LoRAxConfig(base_model="org/model", base_model_revision="v2", adapter_cache_size=5).worker_flags()
    assert "--base-model org/model@v2 --slots 5 --max-batch 32 --gpu-memory-utilization 0.9" == " ".join(flags)
    chosen = LoRAxConfig(**{name: value for name, (value, _) in IN_A_FLEET.items()}).worker_flags()
    for flag in ("--max-model-len 512", "--dtype bfloat16", "--log-level debug", "--max-batch 5"):
        assert flag in " ".join(chosen)


@pytest.mark.parametrize(
    ("wanted", "served", "same"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", True),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct", True),
        ("/models/Llama-3.1-8B-Instruct/", "Llama-3.1-8B-Instruct", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct", True),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct", False),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B", False),
        ("meta-llama/Llama-3.1-8B-Instruct", "somebody/Llama-3.1-8B-Instruct", False),
    ],
)
def test_a_base_model_is_told_from_another(wanted: str, served: str, same: bool) -> None:
    """By owner and name; a folder and a bare name by the name."""
    assert (None if same else served) == served_instead(wanted, None, PoolConfig(base_model=served))


def test_a_revision_counts_where_both_name_one() -> None:
    """Given apart or after an @."""
    pool = PoolConfig(base_model="org/model", revision="v1")
    assert [None, None, "org/model@v1", "org/model@v1"] == [
        served_instead("org/model", None, pool),
        served_instead("org/model@v1", None, pool),
        served_instead("org/model@v2", None, pool),
        served_instead("org/model", "v2", pool),
    ]
