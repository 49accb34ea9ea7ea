"""ModelRunner: loading, refusing, the self-check, and a row of bad numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM

from lorapool.shared.errors import BaseModelError
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.port import EngineSick, OutOfMemory
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.native import self_check
from lorapool.worker.native.load import load_runner
from lorapool.worker.native.runner import ModelRunner
from tests.fake_runner import FakeStore
from tests.worker.tiny import VOCABULARY, Now, drain, random_weights, runner_over, sequence, tiny_llama, tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path)
    return tmp_path


def _engine(runner: Any) -> ContinuousBatch:
    from lorapool.worker.engine.adapter_cache import AdapterCache

    adapters = AdapterCache(FakeStore(), lambda source: source, 1, Now())  # type: ignore[arg-type,return-value]
    return ContinuousBatch(runner, adapters, Scheduler())


def test_greedy_tokens_are_those_of_the_model_alone(folder: Path) -> None:
    """A loaded checkpoint generates what transformers' own forward gives, token by token."""
    runner = load_runner(folder, kv_cache_bytes=1 << 24)
    engine = _engine(runner)
    prompts = [[5], [7, 8, 9] * 5, [1, 2]]
    for index, prompt in enumerate(prompts):
        engine.add(sequence(str(index), prompt, max_new_tokens=10))
    seen = drain(engine)
    plain = tiny_llama()
    for index, prompt in enumerate(prompts):
        ids = list(prompt)
        for _ in range(10):
            ids.append(int(plain(torch.tensor([ids])).logits[0, -1].argmax()))
        assert ids[len(prompt) :] == tokens(seen[str(index)])


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rope_that_depends_on_the_longest_row_is_refused(folder: Path, kind: str) -> None:
    """Such a row would be moved by its neighbours."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0] * 4, "original_max_position_embeddings": 64}
    extra = factors if kind == "longrope" else {"factor": 2.0}
    config["rope_parameters"] = {"rope_type": kind, "rope_theta": 10000.0, **extra}
    path.write_text(json.dumps(config))
    with pytest.raises(BaseModelError, match=kind):
        load_runner(folder)


def test_a_context_beyond_the_models_own_is_refused(folder: Path) -> None:
    """Naming both."""
    with pytest.raises(BaseModelError, match="max_model_len 999 exceeds the model's own 256"):
        load_runner(folder, max_model_len=999)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """With the folder in the message."""
    with pytest.raises(BaseModelError, match=str(tmp_path)):
        load_runner(tmp_path)


def test_the_self_check_refuses_a_model_whose_rows_touch() -> None:
    """A model that mixes the rows of the flat batch is not served."""
    model = tiny_llama()
    runner = runner_over(model)
    self_check.check(runner)
    first = model.model.layers[0].mlp
    inner = first.forward
    first.forward = lambda x: inner(x) + x.mean(dim=1, keepdim=True)
    with pytest.raises(BaseModelError, match="fails the self-check"):
        self_check.check(runner)


def test_the_self_check_refuses_attention_that_has_more_to_it() -> None:
    """Attention with something that ours does not know (gpt-oss' sinks) gives other logits than transformers' own."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 2}
    small = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 32, "num_local_experts": 2}
    ends = {"pad_token_id": None, "eos_token_id": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    config = GptOssConfig(**sizes, **small, **ends, num_experts_per_tok=1, initializer_range=0.4)
    with pytest.raises(BaseModelError, match="transformers' own forward"):
        self_check.check(runner_over(GptOssForCausalLM(config).eval()))


def test_layers_of_an_unknown_type_are_refused_by_name() -> None:
    """Attention in chunks, as llama4 has it, would pass on rows shorter than a chunk."""
    model = tiny_llama()
    model.config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(BaseModelError, match="chunked_attention"):
        runner_over(model)


def test_a_window_that_the_attention_is_not_told_is_refused() -> None:
    """A window in the config alone would be missed on long rows only, where nothing checks it."""
    model = tiny_llama()
    model.config.layer_types, model.config.sliding_window = ["full_attention", "sliding_attention"], 8
    with pytest.raises(BaseModelError, match=r"layer 1 is sliding_attention with a window of 8.*asks for None"):
        runner_over(model)


def test_a_model_without_the_attention_interface_is_refused() -> None:
    """There would be nothing to put the KV cache into."""
    model = tiny_llama()
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(BaseModelError, match="attention interface"):
        runner_over(model)


def test_bad_numbers_of_one_adapter_stay_its_own() -> None:
    """An adapter that overflows fails its row; neighbours and later users of the KV row are untouched."""
    model = tiny_llama()
    runner = runner_over(model)
    bad = random_weights(model, 4, 0, ["v_proj"])
    for module in bad.modules.values():
        module.B *= float("inf")
    runner.lora.write(1, bad)
    calm = tokens(drain_one(runner, sequence("calm", [3, 4, 5], max_new_tokens=6)))
    engine = _engine(runner)
    engine.add(sequence("good", [3, 4, 5], max_new_tokens=6))
    poisoned = sequence("bad", [3, 4, 5], max_new_tokens=6)
    engine.add(poisoned)
    engine._admit()
    poisoned.slot = 1
    seen: dict[str, list[Any]] = {"good": [], "bad": []}
    while engine.has_work:
        for update in engine.step():
            seen[update.seq_id].append(update)
            poisoned.slot = 0 if update.seq_id == "bad" else poisoned.slot
    assert isinstance(seen["bad"][-1].error, FloatingPointError)
    assert calm == tokens(seen["good"])
    assert calm == tokens(drain_one(runner, sequence("later", [3, 4, 5], max_new_tokens=6)))


def drain_one(runner: ModelRunner, row: Any) -> list[Any]:
    engine = _engine(runner)
    engine.add(row)
    return drain(engine)[row.seq_id]


def test_hf_names_stay_and_shared_inputs_are_found() -> None:
    """PEFT's module paths are the model's own, and q, k, v and gate, up each share one product of their A's."""
    model = tiny_llama()
    names = {name for name, _ in model.named_parameters()}
    runner = runner_over(model)
    assert names == {name for name, _ in runner.model.named_parameters()}
    keys = runner.lora._key
    layer = "model.layers.1."
    assert keys[f"{layer}self_attn.k_proj"] == keys[f"{layer}self_attn.v_proj"] == f"{layer}self_attn.q_proj"
    assert keys[f"{layer}mlp.up_proj"] == f"{layer}mlp.gate_proj"
    assert runner.vocabulary == VOCABULARY


def test_the_probe_passes_until_the_device_computes_otherwise() -> None:
    """It compares with what it saw first: weights that are overwritten show, and so do numbers that are none."""
    model = tiny_llama()
    runner = runner_over(model)
    runner.probe()
    drain_one(runner, sequence("between", [3, 4, 5], max_new_tokens=2))
    runner.probe()
    weight = model.model.layers[1].mlp.down_proj.weight
    whole = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(-whole)
    with pytest.raises(EngineSick, match="not those of the start"):
        runner.probe()
    with torch.no_grad():
        weight.fill_(float("nan"))
    with pytest.raises(EngineSick, match="not numbers"):
        runner.probe()
    with torch.no_grad():
        weight.copy_(whole)
    runner.probe()


WANTS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail] can't allocate memory"),
]


@pytest.mark.parametrize("error", WANTS)
def test_want_of_memory_is_told_apart(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """In a step it is OutOfMemory, at a reservation a no; any other error is what it is."""
    runner = runner_over(tiny_llama())
    runner.probe()

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(runner._cache, "reserve", fail)
    assert not runner.reserve("a", 10)
    monkeypatch.undo()
    engine = _engine(runner)
    engine.add(sequence("a", [1, 2], max_new_tokens=4))
    engine.step()
    monkeypatch.setattr(runner, "logits", fail)
    [update] = engine.step()
    assert isinstance(update.error, OutOfMemory)
    assert engine.counters.shrinks == 1
    monkeypatch.undo()
    error = RuntimeError("shape mismatch")
    monkeypatch.setattr(runner._cache, "reserve", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        runner.reserve("a", 10)
