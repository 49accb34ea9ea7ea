"""Which device and dtype ``auto`` means, with and without GPUs: torch's own answers are stood in for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lorapool.shared.errors import BaseModelError
from lorapool.worker.adapters.checkpoint import ModelSpec
from lorapool.worker.native import device
from tests.worker.checkpoints import tiny_llama

GIB = 2**30


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of 80 GiB; the second one is old."""
    properties = SimpleNamespace(name="A GPU", total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5) if index == 1 else (9, 0))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("wanted", "chosen"), [("auto", "cuda:0"), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_with_gpus(wanted: str, chosen: str, gpus: None) -> None:
    assert chosen == device.choose_device(wanted)


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_without_gpu(wanted: str, no_gpu: None) -> None:
    assert "cpu" == device.choose_device(wanted)


def test_a_device_that_is_not_there_is_named(gpus: None) -> None:
    """With how many there are, and what to do."""
    with pytest.raises(BaseModelError, match=r"'cuda:2'.* sees 2 CUDA devices.*--device cpu"):
        device.choose_device("cuda:2")


def test_none_is_there(no_gpu: None) -> None:
    with pytest.raises(BaseModelError, match="sees 0 CUDA devices"):
        device.choose_device("cuda")


@pytest.mark.parametrize(("on", "dtype"), [("cuda:0", "bfloat16"), ("cuda:1", "float16")])
def test_a_gpus_dtype_is_by_its_generation(on: str, dtype: str, gpus: None) -> None:
    assert dtype == device.choose_dtype("auto", on)
    assert "float32" == device.choose_dtype("float32", on)


@pytest.mark.parametrize(("has", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpus_dtype_is_by_its_instructions(has: bool, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: has)
    assert dtype == device.choose_dtype("auto", "cpu")
    assert "float16" == device.choose_dtype("float16", "cpu")


def test_a_cpu_keeps_two_gib_of_keys_and_values() -> None:
    assert 2 * GIB == device.default_kv_bytes("cpu", 500 * GIB, 0.9)


def test_a_gpu_keeps_what_its_weights_leave(gpus: None) -> None:
    """Of its share, without an eighth for what runs."""
    assert round(80 * GIB * 0.775) - 20 * GIB == device.default_kv_bytes("cuda:0", 20 * GIB, 0.9)


def test_weights_that_leave_no_room(gpus: None) -> None:
    """Both sizes are named, and what to do."""
    with pytest.raises(BaseModelError, match=r"80\.0 GiB: 70\.0 GiB of weights.*--gpu-memory-utilization"):
        device.default_kv_bytes("cuda:0", 70 * GIB, 0.9)


def test_a_device_in_words(gpus: None) -> None:
    assert "A GPU, 80 GiB" == device.describe("cuda:0")
    assert f"CPU, {torch.get_num_threads()} threads" == device.describe("cpu")


def test_a_slots_bytes_are_those_of_its_factors() -> None:
    """[rank, in] and [out, rank] of every module that can be adapted; float32 on a CPU, half of that on a GPU."""
    spec = ModelSpec.of(tiny_llama())
    widths = sum(module.in_features + module.out_features for module in spec.modules.values())
    assert widths * 8 * 4 == device.slot_bytes(spec, 8, "cpu")
    assert widths * 8 * 2 == device.slot_bytes(spec, 8, "cuda:0")
