from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorapool.shared.digest import MAX_HEADER_BYTES, adapter_digest, digest_of, read_config, read_header, read_weights
from lorapool.shared.errors import CheckpointError

HEADER = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"format": "pt"}}


def weights(header: object = HEADER, data: bytes = b"\0" * 4) -> bytes:
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "peft_type": "LORA"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(weights())
    return tmp_path


def test_the_digest_is_of_the_content(folder: Path) -> None:
    """Key order and layout of the config do not matter; its values and every byte of the weights do."""
    first = adapter_digest(folder)
    (folder / "adapter_config.json").write_text('{"peft_type":\n "LORA", "r": 4}')
    assert first == adapter_digest(folder)
    assert first == digest_of(read_config(folder), read_weights(folder))
    (folder / "adapter_config.json").write_text('{"r": 5, "peft_type": "LORA"}')
    second = adapter_digest(folder)
    (folder / "adapter_model.safetensors").write_bytes(weights(data=b"\0\0\0\1"))
    assert len({first, second, adapter_digest(folder)}) == 3
    assert len(first) == 64


def test_a_header_is_read_without_its_data(folder: Path) -> None:
    assert read_header(folder) == HEADER


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        adapter_digest(folder)


def test_a_pickle_is_never_opened(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        adapter_digest(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\2\3",
        (1 << 62).to_bytes(8, "little") + b"{}",
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little"),
        weights(header=[1, 2]),
        (9).to_bytes(8, "little") + b"not json!",
        weights(header={"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}),
        weights(header={"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}),
        weights(header={"a": {"dtype": "F32"}}),
        weights(header={"a": {"dtype": "F32", "shape": [1], "data_offsets": [True, 4]}}),
    ],
)
def test_a_broken_header_is_refused(folder: Path, content: bytes) -> None:
    """Lengths and offsets from the file are believed only within the file."""
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        read_header(folder)


def test_a_config_that_is_no_object_is_refused(folder: Path) -> None:
    for text in ("[]", "{", "[" * 100_000):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
            adapter_digest(folder)
