"""What an adapter's author writes: adapter_config.json, the safetensors header, the file as a whole."""

from __future__ import annotations

import json
import struct
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from lorapool.producer.client.folder import describe
from lorapool.shared.catalog.adapter_record import AdapterRecord, encoded, told_by
from lorapool.shared.digest import CONFIG_NAME, WEIGHTS_NAME, json_object
from lorapool.shared.errors import CheckpointError, LorapoolError
from lorapool.shared.prompt_format import TEMPLATE_NAME
from lorapool.worker.adapters.peft_config import PeftConfig
from lorapool.worker.adapters.trained_on_merged import refuse_trained_on_merged
from tests.fuzz import mutation
from tests.fuzz.target import Target

CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "org/base", "revision": "main", "r": 4,
    "lora_alpha": 8, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"], "bias": "none", "use_rslora": False,
    "use_dora": False, "rank_pattern": {"layers.0.self_attn.q_proj": 8, "^model.*v_proj$": 2},
    "alpha_pattern": {"q_proj": 16}, "layers_to_transform": [0, 1], "layers_pattern": "layers",
    "exclude_modules": None, "init_lora_weights": True, "fan_in_fan_out": False, "modules_to_save": None,
}  # fmt: skip
PATHS = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(4) for name in "qkvo"]
EXPRESSIONS = (
    ".*", "(a|aa)+$", ".?" * 40 + "Q", "(?=x)", "\\1", "[[:alpha:]]", "a{1000}", "(?P<n>x)", "[a-\\d]", "\\ud800",
    "(?i)q",
    "layers\\.[0-9]+\\.", "^$", "|", "(", "*", "q_proj|v_proj", "((((((((((x))))))))))", "\\Z", "[^]]", "x{,3}",
    "(?:a?){64}",
)  # fmt: skip


def draw_config(random: Random) -> dict[str, Any]:
    """A config, changed; often with another expression among its patterns."""
    found = mutation.changed(random, CONFIG)
    if not isinstance(found, dict):
        return {"r": found}
    if random.random() < 0.5:
        part = mutation.changed_text(random, random.choice(EXPRESSIONS))
        found[random.choice(("rank_pattern", "alpha_pattern"))] = {part: mutation.value(random, 0), "q_proj": 4}
    return found


def check_config(fields: dict[str, Any]) -> None:
    """As a worker reads it: refused by name, or every module's rank and scaling are numbers."""
    config = PeftConfig.of(fields)
    config.check_effort(len(PATHS))
    for path in PATHS:
        assert 0 < config.rank(path)
        assert config.scaling(path) == config.scaling(path)
        config.targets(path)


def check_told(fields: dict[str, Any]) -> None:
    """What a client tells of it can be stored, and read again."""
    told = told_by(fields)
    record = AdapterRecord(id="a", version="1", digest="ab", uri="file:///a").model_copy(update=told)
    stored = {name.encode(): value.encode(errors="replace") for name, value in record.stored().items()}
    read = AdapterRecord.of_reply(stored)
    encoded(read.model_dump())
    refuse_trained_on_merged(read, "org/base")


def draw_text(random: Random) -> bytes:
    """The file's bytes: changed as text, or what is no JSON at all."""
    text = json.dumps(CONFIG).encode()
    if random.random() < 0.1:
        return b"[" * random.choice((10, 1000, 200_000)) + text
    return mutation.changed_bytes(random, text)


def check_text(text: bytes) -> None:
    check_config(json_object("adapter_config.json", text))


def safetensors(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


@cache
def sample() -> tuple[dict[str, Any], bytes]:
    """A header and the data of an adapter on the tiny spec: two modules of rank 4."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for module, (inputs, outputs) in _MODULES.items():
        for part, shape in (("lora_A", [4, inputs]), ("lora_B", [outputs, 4])):
            size = 4 * shape[0] * shape[1]
            name = f"base_model.model.{module}.{part}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
            at += size
    return header, struct.pack(f"<{at // 4}f", *(0.01 * (n % 7 + 1) for n in range(at // 4)))


_MODULES = {"model.layers.0.self_attn.q_proj": (8, 8), "model.layers.0.self_attn.v_proj": (8, 4)}
_PLAIN = {**CONFIG, "rank_pattern": {}, "alpha_pattern": {}, "layers_to_transform": None, "layers_pattern": None}


def draw_file(random: Random) -> tuple[bytes, bytes, bytes]:
    """Config, weights and template of a folder."""
    header, data = sample()
    config = json.dumps(_PLAIN).encode()
    template = b"{% for m in messages %}{{ m.content }}{% endfor %}"
    match random.randrange(5):
        case 0:
            weights = mutation.changed_bytes(random, safetensors(json.dumps(header).encode(), data))
        case 1 | 2:
            changed = json.dumps(mutation.changed(random, header)).encode()
            weights = safetensors(changed, data if random.random() < 0.7 else mutation.changed_bytes(random, data))
        case 3:
            weights = safetensors(json.dumps(header).encode(), mutation.changed_bytes(random, data))
        case _:
            weights = safetensors(json.dumps(header).encode(), data)
            config = json.dumps(mutation.changed(random, _PLAIN)).encode()
    return config, weights, mutation.changed_bytes(random, template) if random.random() < 0.3 else b""


class Folder:
    """Written anew for each case."""

    def __init__(self, case: tuple[bytes, bytes, bytes]) -> None:
        self._case = case
        self._place = tempfile.TemporaryDirectory(prefix="lorapool-fuzz-")

    def __enter__(self) -> Path:
        folder = Path(self._place.name)
        for name, data in zip((CONFIG_NAME, WEIGHTS_NAME, TEMPLATE_NAME), self._case, strict=True):
            if data:
                (folder / name).write_bytes(data)
        return folder

    def __exit__(self, *_: object) -> None:
        self._place.cleanup()


def check_described(case: tuple[bytes, bytes, bytes]) -> None:
    """What a client tells of the folder."""
    with Folder(case) as folder:
        facts = describe(folder.as_uri(), None)
        AdapterRecord(id="a", version="1", digest=facts.digest, uri=facts.uri).model_copy(
            update=dict(facts.from_files)
        ).stored()


def check_loaded(case: tuple[bytes, bytes, bytes]) -> None:
    """What a worker loads: a refusal, or finite weights of the right shapes."""
    import torch

    from lorapool.worker.adapters.checkpoint import load_checkpoint

    with Folder(case) as folder:
        weights = load_checkpoint(folder, _spec(), 16)
    for module in weights.modules.values():
        assert torch.isfinite(module.A).all() and torch.isfinite(module.B).all()


@cache
def _spec() -> Any:
    import torch

    from lorapool.worker.adapters.checkpoint import ModelSpec, ModuleSpec

    modules = {
        name: ModuleSpec(inputs, outputs, "linear", torch.zeros(outputs, inputs))
        for name, (inputs, outputs) in _MODULES.items()
    }
    return ModelSpec(modules, frozenset({"org/base"}))


REFUSALS = (CheckpointError, LorapoolError)
TARGETS = (
    Target("config", draw_config, check_config, 2.0, REFUSALS),
    Target("config.text", draw_text, check_text, 2.0, REFUSALS),
    Target("config.told", draw_config, check_told, 2.0, REFUSALS),
    Target("folder", draw_file, check_described, 2.0, REFUSALS),
    Target("weights", draw_file, check_loaded, 5.0, REFUSALS, _spec),
)
