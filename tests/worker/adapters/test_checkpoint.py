"""Checkpoints: what is served equals PEFT's own modules; what is not is refused by name."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lorapool.shared.digest import adapter_digest
from lorapool.shared.errors import AdapterUnavailable, CheckpointError
from lorapool.worker.adapters import model_outline
from lorapool.worker.adapters.checkpoint import AdapterWeights, ModelSpec, load_checkpoint, row_norms
from tests.worker.checkpoints import edit_config, edit_tensors, save_adapter, tiny_gemma3, tiny_gpt2, tiny_llama

Q0 = "model.layers.0.self_attn.q_proj"
A_OF_Q0 = f"base_model.model.{Q0}.lora_A.weight"
B_OF_Q0 = f"base_model.model.{Q0}.lora_B.weight"
MAX_RANK = 64
LLAMA = tiny_llama()
SPEC = ModelSpec.of(LLAMA, ["tiny/llama"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good adapter on q_proj and v_proj, to be spoilt."""
    save_adapter(tmp_path, LLAMA)
    return tmp_path


def outlined(spec: ModelSpec) -> ModelSpec:
    """What a judge in another process has of the model: no weights, and the same verdicts."""
    return model_outline.unpacked(json.loads(json.dumps(model_outline.packed(spec, MAX_RANK))))


def refusal(
    folder: Path,
    spec: ModelSpec = SPEC,
    max_rank: int = MAX_RANK,
    digest: str | None = None,
    kind: type[Exception] = CheckpointError,
) -> str:
    with pytest.raises(kind) as caught:
        load_checkpoint(folder, spec, max_rank, digest)
    with pytest.raises(kind, match=f"^{re.escape(str(caught.value))}$"):
        load_checkpoint(folder, outlined(spec), max_rank, digest)
    return str(caught.value)


def computed(weights: AdapterWeights, path: str, base: nn.Module, x: Tensor) -> Tensor:
    """The formula that LoraWeights documents."""
    module, out = weights.modules[path], base(x)
    if module.gain is not None:
        out = module.gain * out
    if module.offset is not None:
        out = out + module.offset
    return out + (module.A.T[x] if isinstance(base, nn.Embedding) else x @ module.A.T) @ module.B.T


def assert_equals_peft(folder: Path, wrapped: PeftModel, model: nn.Module) -> AdapterWeights:
    weights = load_checkpoint(folder, ModelSpec.of(model), MAX_RANK)
    judged = load_checkpoint(folder, outlined(ModelSpec.of(model)), MAX_RANK)
    assert (weights.rank, weights.nbytes, weights.digest) == (judged.rank, judged.nbytes, judged.digest)
    base = wrapped.get_base_model()
    adapted = {path: module for path, module in base.named_modules() if isinstance(module, LoraLayer)}
    assert adapted.keys() == weights.modules.keys()
    for path, module in adapted.items():
        looked_up = isinstance(module.get_base_layer(), nn.Embedding)
        x = torch.tensor([5, 0, 63]) if looked_up else torch.randn(3, module.in_features, dtype=torch.float64)
        ours = computed(weights, path, module.get_base_layer(), x)
        torch.testing.assert_close(ours, module(x), rtol=1e-9, atol=1e-9)
    return weights


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FORMATS: dict[str, dict[str, Any]] = {
    "lora": {},
    "all linear": {"target_modules": "all-linear", "r": 3, "lora_alpha": 7},
    "rslora": {"use_rslora": True, "r": 5},
    "rank pattern": {"rank_pattern": {"q_proj": 9, r"layers\.1\.self_attn\.v_proj": 2}, "target_modules": LINEAR},
    "alpha pattern": {"alpha_pattern": {"v_proj": 3}, "rank_pattern": {"^model.layers.0.self_attn.v_proj": 7}},
    "rslora with patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"q_proj": 2}},
    "dora": {"use_dora": True, "target_modules": LINEAR},
    "dora with rslora": {"use_dora": True, "use_rslora": True, "lora_alpha": 3},
    "lora bias": {"lora_bias": True, "target_modules": ["q_proj", "k_proj", "v_proj"]},
    "some layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "modules left out": {"target_modules": LINEAR, "exclude_modules": ["q_proj"]},
    "targets as an expression": {"target_modules": r".*\.0\.mlp\.(up|down)_proj"},
    "gaussian start": {"init_lora_weights": "gaussian", "lora_dropout": 0.1},
}


@pytest.mark.filterwarnings("ignore:Adapter 'default'.*invalid shape:UserWarning")  # PEFT's words on its own biases
@pytest.mark.parametrize("name", FORMATS)
def test_every_served_format_computes_what_peft_computes(tmp_path, name):
    """Each adapted module's output equals the PEFT module's own unmerged forward, in float64."""
    wrapped = save_adapter(tmp_path, LLAMA, **FORMATS[name])
    assert_equals_peft(tmp_path, wrapped, LLAMA)


@pytest.mark.parametrize("dora", [False, True])
def test_conv1d_modules_are_served(tmp_path, dora):
    """gpt2 keeps its weights transposed; the adapters for it are served all the same."""
    model = tiny_gpt2()
    wrapped = save_adapter(tmp_path, model, target_modules=["c_attn", "c_fc"], use_dora=dora, fan_in_fan_out=True)
    assert_equals_peft(tmp_path, wrapped, model)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("tied", [False, True])
def test_the_head_is_served_and_the_base_weights_saved_beside_it_are_dropped(tmp_path, tied):
    """PEFT saves the base's embedding and head beside an adapter on lm_head; equal to the base, they are dropped."""
    model = tiny_llama(tie_word_embeddings=tied)
    wrapped = save_adapter(tmp_path, model, target_modules=["q_proj", "lm_head"])
    assert "lm_head" in assert_equals_peft(tmp_path, wrapped, model).modules


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("ends", [["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_the_embedding_is_served_tied_or_not(tmp_path, ends, dora):
    """LoRA and DoRA on the embedding, alone and with the head, of tied weights: each module is PEFT's own."""
    model = tiny_llama(tie_word_embeddings=True)
    wrapped = save_adapter(tmp_path, model, target_modules=["q_proj", *ends], use_dora=dora, use_rslora=True)
    weights = assert_equals_peft(tmp_path, wrapped, model)
    assert {end.replace("embed_tokens", "model.embed_tokens") for end in ends} <= weights.modules.keys()


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("dora", [False, True])
def test_an_embedding_that_scales_its_rows_is_served(tmp_path, dora):
    """Gemma's embedding multiplies its rows by a constant; PEFT multiplies the adapter's part as well."""
    model = tiny_gemma3()
    wrapped = save_adapter(tmp_path, model, target_modules=["embed_tokens"], use_dora=dora)
    assert_equals_peft(tmp_path, wrapped, model)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    r=st.integers(1, 33),
    alpha=st.floats(0.5, 40),
    rslora=st.booleans(),
    dora=st.booleans(),
    targets=st.sets(st.sampled_from(LINEAR), min_size=1),
    pattern=st.dictionaries(st.sampled_from(LINEAR), st.integers(1, 33), max_size=3),
    seed=st.integers(0, 2**31),
)
@pytest.mark.filterwarnings("ignore:.*_pattern:UserWarning")
def test_any_mix_of_ranks_and_formats_computes_what_peft_computes(
    tmp_path_factory, r, alpha, rslora, dora, targets, pattern, seed
):
    """Random ranks, patterns, scalings and modules, rsLoRA and DoRA or not: equal to PEFT's modules in float64."""
    folder = tmp_path_factory.mktemp("adapter")
    chosen = {name: rank for name, rank in pattern.items() if name in targets}
    config = {"r": r, "lora_alpha": alpha, "use_rslora": rslora, "use_dora": dora, "rank_pattern": chosen}
    wrapped = save_adapter(folder, LLAMA, seed, target_modules=sorted(targets), **config)
    weights = assert_equals_peft(folder, wrapped, LLAMA)
    assert max(chosen.get(name, r) for name in targets) == weights.rank


def test_row_norms_need_no_whole_product():
    """‖W + BA‖ by pieces equals the norm of the whole, over a number of rows that no piece divides."""
    w, a, b = torch.randn(1300, 20).double(), torch.randn(3, 20).double(), torch.randn(1300, 3).double()
    torch.testing.assert_close(torch.linalg.vector_norm(w + b @ a, dim=1), row_norms(w, a, b))


def test_facts_about_the_weights(folder):
    """Digest, rank and bytes are those of the files and tensors."""
    weights = load_checkpoint(folder, SPEC, MAX_RANK)
    assert adapter_digest(folder) == weights.digest
    assert weights.rank == 4
    assert sum(m.A.nbytes + m.B.nbytes for m in weights.modules.values()) == weights.nbytes


def test_half_precision_becomes_float32_under_a_float32_base(tmp_path):
    """An adapter stored in bfloat16 is widened without loss."""
    save_adapter(tmp_path, LLAMA)
    path = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    stored = torch.randn(4, 32).bfloat16()
    edit_tensors(tmp_path, {path: stored})
    spec = ModelSpec.of(tiny_llama().float())
    found = load_checkpoint(tmp_path, spec, MAX_RANK).modules[Q0].A
    assert found.dtype == torch.float32
    assert torch.equal(stored.float(), found)


# Hostile and broken ---------------------------------------------------------------------------------------------------


def test_a_pickle_is_refused_unopened(folder):
    """Only adapter_model.bin there: refused as a pickle, with the way out."""
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    assert "pickle" in refusal(folder)
    assert "safetensors" in refusal(folder)


def test_missing_files_are_named(tmp_path):
    """No config, no weights: the file that is missing is named."""
    assert "adapter_config.json" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "adapter_model.safetensors" in refusal(tmp_path)


def test_a_truncated_file_is_refused(folder):
    """Half a file of weights is not served."""
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "safetensors file" in refusal(folder)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 80 << 20, 0])
def test_a_header_length_that_lies_is_refused(folder, length):
    """A header said to be huge is never allocated."""
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    assert "safetensors file" in refusal(folder)


def test_a_file_larger_than_any_adapter_is_not_read(folder):
    """A terabyte of holes is refused by its size, before memory is taken for it; what is too large for this worker's
    largest rank is left to others."""
    for size, kind in ((1 << 40, CheckpointError), (1 << 33, AdapterUnavailable)):
        with (folder / "adapter_model.safetensors").open("r+b") as weights:
            weights.truncate(size)
        assert "the limit is" in refusal(folder, kind=kind)


def test_offsets_outside_the_file_are_refused(folder):
    """A tensor said to lie behind the end of the file is not read."""
    header = json.dumps({A_OF_Q0: {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    assert "safetensors file" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(folder, value):
    """One NaN or infinity anywhere, and the tensor is named."""
    tensor = torch.ones(4, 32)
    tensor[1, 2] = value
    edit_tensors(folder, {A_OF_Q0: tensor})
    assert A_OF_Q0 in refusal(folder)


def test_scaling_that_overflows_is_refused(folder):
    """Finite weights whose scaled product is infinite are not served."""
    edit_config(folder, lora_alpha=1e308)
    assert "not finite" in refusal(folder, ModelSpec.of(tiny_llama().float()))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        (A_OF_Q0, (4, 31), "[4, 32]"),
        (A_OF_Q0, (0, 32), "[4, 32]"),
        (B_OF_Q0, (16, 4), "[32, 4]"),
        (B_OF_Q0, (32,), "[32, 4]"),
    ],
)
def test_a_wrong_shape_names_tensor_shape_and_expectation(folder, name, shape, expected):
    """A tensor that does not fit the module says which, what it has and what was expected."""
    edit_tensors(folder, {name: torch.ones(shape)})
    message = refusal(folder)
    assert name.removeprefix("base_model.model.") in message
    assert str(list(shape)) in message
    assert expected in message


def test_a_rank_that_differs_from_the_config_is_refused(folder):
    """Rank comes from the tensors and must be the config's: PEFT would scale by another number."""
    edit_config(folder, r=8)
    assert "expected [8, 32]" in refusal(folder)


def test_too_high_a_rank_names_the_flag(folder):
    """Rank 4 where 3 is the most: this worker's own limit. The message says which flag to raise, and to what."""
    assert "--max-rank 4" in refusal(folder, max_rank=3, kind=AdapterUnavailable)


def test_an_adapter_for_another_model_is_refused_by_name(folder):
    """Same shapes, another public name."""
    edit_config(folder, base_model_name_or_path="mistralai/Mistral-7B-v0.3")
    assert "mistralai/Mistral-7B-v0.3" in refusal(folder)


@pytest.mark.parametrize("name", ["tiny/llama", "mirror/LLAMA", "/home/me/checkpoint-12", None])
def test_a_mirror_or_a_local_path_may_be_the_same_model(folder, name):
    """Only the last part of a public name counts, and a local path says nothing."""
    edit_config(folder, base_model_name_or_path=name)
    assert load_checkpoint(folder, SPEC, MAX_RANK).rank == 4


def test_an_adapter_for_another_architecture_is_refused_by_module(tmp_path):
    """Modules that the base model has not are named."""
    save_adapter(tmp_path, tiny_gpt2(), target_modules=["c_attn"], fan_in_fan_out=True)
    assert "transformer.h.0.attn.c_attn" in refusal(tmp_path)


def test_an_adapter_for_another_size_is_refused_by_shape(tmp_path):
    """Same names, other sizes."""
    save_adapter(tmp_path, tiny_llama(hidden_size=64))
    assert "expected [4, 32]" in refusal(tmp_path)


def test_an_adapter_without_tensors_applies_nothing(folder):
    """An empty file is refused, not served as the base model."""
    edit_tensors(folder, dict.fromkeys(names_in(folder)))
    assert "applies nothing" in refusal(folder)


@pytest.mark.parametrize("dora", [False, True])
def test_an_untrained_adapter_applies_nothing(tmp_path, dora):
    """All B are zero (and DoRA's magnitudes those of the base): it would answer exactly like the base model."""
    wrapped = save_adapter(tmp_path, LLAMA, use_dora=dora)
    changes = no_b(tmp_path)
    for path, module in wrapped.get_base_model().named_modules():
        if dora and isinstance(module, LoraLayer):
            norms = module.get_base_layer().weight.norm(dim=1)
            changes[f"base_model.model.{path}.lora_magnitude_vector"] = norms
    edit_tensors(tmp_path, changes)
    assert "applies nothing" in refusal(tmp_path)


def test_magnitudes_alone_are_an_effect(tmp_path):
    """DoRA with all B zero but magnitudes that moved is served."""
    save_adapter(tmp_path, LLAMA, use_dora=True)
    edit_tensors(tmp_path, no_b(tmp_path))
    for spec in (SPEC, outlined(SPEC)):
        assert load_checkpoint(tmp_path, spec, MAX_RANK).modules[Q0].gain is not None


@pytest.mark.parametrize(
    "name",
    ["base_model.model.model.norm.weight", "surprise", f"base_model.model.{Q0}.bias", f"{Q0}.lora_A.weight"],
)
def test_a_tensor_that_is_not_applied_is_refused_by_name(folder, name):
    """Nothing in the file is ignored silently."""
    edit_tensors(folder, {name: torch.ones(4, 32)})
    assert name in refusal(folder)


def test_a_trained_embedding_is_refused(folder):
    """A saved base embedding that differs from the base's would change every answer."""
    changed = SPEC.weight("model.embed_tokens").T.clone()
    changed[3] += 1
    edit_tensors(folder, {"base_model.model.model.embed_tokens.weight": changed})
    assert "model.embed_tokens" in refusal(folder)


def test_added_vocabulary_is_refused(folder):
    """An embedding with more rows than the base's is refused as added vocabulary."""
    edit_tensors(folder, {"base_model.model.model.embed_tokens.weight": torch.zeros(70, 32)})
    assert "vocabulary" in refusal(folder)


def test_factors_of_another_kind_of_module_are_refused(folder):
    """An embedding's factors on a linear module: PEFT would not load them."""
    edit_tensors(folder, {f"base_model.model.{Q0}.lora_embedding_A": torch.ones(4, 32)})
    assert f"{Q0}: has lora_embedding_A" in refusal(folder)


def test_a_tensor_under_both_its_names_is_refused(tmp_path):
    """DoRA's magnitude under PEFT's old and new name: which one counts would be chance."""
    save_adapter(tmp_path, LLAMA, use_dora=True)
    edit_tensors(tmp_path, {f"base_model.model.{Q0}.lora_magnitude_vector.weight": torch.ones(32)})
    assert "twice" in refusal(tmp_path)


def test_half_a_module_is_refused(folder):
    """A without B would be started at random by PEFT."""
    edit_tensors(folder, {B_OF_Q0: None})
    assert f"{Q0}: has no lora_B.weight" in refusal(folder)


def test_magnitudes_that_the_config_does_not_ask_for_are_refused(folder):
    """PEFT would ignore them: the answers would differ."""
    edit_tensors(folder, {f"base_model.model.{Q0}.lora_magnitude_vector": torch.ones(32)})
    assert "lora_magnitude_vector" in refusal(folder)


@pytest.mark.parametrize(
    "change", [{"target_modules": ["v_proj"]}, {"exclude_modules": ["q_proj"]}, {"layers_to_transform": [1]}]
)
def test_a_module_that_the_config_does_not_choose_is_refused(folder, change):
    """PEFT would leave its tensors out: the answers would differ."""
    edit_config(folder, **change)
    assert "does not choose" in refusal(folder)


def test_integer_weights_are_refused(folder):
    """Quantized tensors are not LoRA weights."""
    edit_tensors(folder, {A_OF_Q0: torch.ones(4, 32, dtype=torch.int8)})
    assert "int8" in refusal(folder)


def test_changed_content_is_refused(folder):
    """The digest is checked against the very bytes that are used."""
    registered = adapter_digest(folder)
    assert load_checkpoint(folder, SPEC, MAX_RANK, registered).digest == registered
    edit_config(folder, lora_alpha=16)
    assert "digest" in refusal(folder, digest=registered)


@pytest.mark.parametrize("text", ["[]", "{", '"x"', "[" * 100_000, "\xff"])
def test_a_config_that_is_no_object_is_refused(folder, text):
    """Anything but a JSON object is refused in words."""
    (folder / "adapter_config.json").write_text(text, encoding="latin-1")
    assert "adapter_config.json" in refusal(folder)


def names_in(folder: Path) -> list[str]:
    return [name for name, _ in shapes_in(folder)]


def no_b(folder: Path) -> dict[str, Tensor | None]:
    return {name: torch.zeros(shape) for name, shape in shapes_in(folder) if "lora_B" in name}


def shapes_in(folder: Path) -> list[tuple[str, list[int]]]:
    data = (folder / "adapter_model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return [(name, entry["shape"]) for name, entry in header.items() if name != "__metadata__"]
