"""Where a base model is, and what makes it the same one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorapool.shared.errors import BaseModelError
from lorapool.worker.native import base_model
from lorapool.worker.native.base_model import BaseModel


def checkpoint(folder: Path, *, weights: bytes = b"weights", **config: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_same_files_under_another_name(tmp_path: Path) -> None:
    """The digest is that of the content: folder name, origin and library version do not matter."""
    one = BaseModel.locate(str(checkpoint(tmp_path / "one", _name_or_path="org/one", transformers_version="5.0")))
    two = BaseModel.locate(str(checkpoint(tmp_path / "two", _name_or_path="org/two", transformers_version="5.1")))
    assert one.digest() == two.digest()
    assert ("one", frozenset({"one", "org/one"})) == (one.name, one.names())


@pytest.mark.parametrize("change", [{"weights": b"others"}, {"hidden_size": 8}])
def test_other_content_is_another_model(tmp_path: Path, change: dict[str, object]) -> None:
    """Other weights or another config is another digest."""
    one = BaseModel.locate(str(checkpoint(tmp_path / "one")))
    two = BaseModel.locate(str(checkpoint(tmp_path / "two", **change)))  # type: ignore[arg-type]
    assert one.digest() != two.digest()


def test_reading_is_told_in_bytes(tmp_path: Path) -> None:
    """Progress adds up to the size of the weights."""
    model, told = BaseModel.locate(str(checkpoint(tmp_path / "one"))), [0]
    model.digest(told.append)
    assert (len(b"weights"), model.nbytes) == (sum(told), sum(told))


def test_no_safetensors(tmp_path: Path) -> None:
    """A folder with a pickle alone is not a base model."""
    (checkpoint(tmp_path / "one") / "model.safetensors").rename(tmp_path / "one" / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"no \*\.safetensors"):
        BaseModel.locate(str(tmp_path / "one")).digest()


def test_no_config(tmp_path: Path) -> None:
    """Weights without a config are not a base model."""
    (checkpoint(tmp_path / "one") / "config.json").unlink()
    with pytest.raises(BaseModelError, match=r"config\.json"):
        BaseModel.locate(str(tmp_path / "one")).digest()


def test_no_such_folder(tmp_path: Path) -> None:
    """What looks like a path is not looked for on the hub."""
    with pytest.raises(BaseModelError, match="not a folder"):
        BaseModel.locate(str(tmp_path / "nowhere"))


def test_hub_id_and_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id is fetched at the revision named after @; a folder's name may hold one too."""
    asked: list[tuple[str, str | None]] = []

    def fetch(name: str, revision: str | None) -> Path:
        asked.append((name, revision))
        return tmp_path

    monkeypatch.setattr(base_model, "_fetch", fetch)
    found = BaseModel.locate("org/model@v1"), BaseModel.locate("org/model")
    assert [("org/model", "v1"), ("org/model", None)] == asked
    assert [("org/model", "v1"), ("org/model", "")] == [(model.name, model.revision) for model in found]
    assert "model@v1" == BaseModel.locate(str(checkpoint(tmp_path / "model@v1"))).name
