from __future__ import annotations

from pathlib import Path

import pytest

from lorapool.producer.local.adapter_folders import adapter_folders
from lorapool.shared.errors import InvalidRequest


def adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_a_folder_s_place_is_its_name(tmp_path: Path) -> None:
    """Its own name, below a team's with a dot; a last part that begins with a number is the version."""
    for place in ("cfo", "team/cto", "ceo/2.1.0", "ceo/v3"):
        adapter(tmp_path / place)
    found = [(folder.id, folder.version) for folder in adapter_folders(tmp_path)]
    assert [("ceo", "2.1.0"), ("ceo", "v3"), ("cfo", "1.0.0"), ("team.cto", "1.0.0")] == found


def test_the_folder_itself_may_be_one(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "cfo")
    assert [("cfo", folder)] == [(found.id, found.path) for found in adapter_folders(folder)]


def test_what_is_no_adapter_is_passed_over(tmp_path: Path) -> None:
    """A trainer's checkpoints inside an adapter, hidden folders, and folders that lack a file."""
    adapter(tmp_path / "cfo")
    adapter(tmp_path / "cfo" / "checkpoint-100")
    adapter(tmp_path / "draft" / "checkpoint-5")
    adapter(tmp_path / ".cache" / "cto")
    adapter(tmp_path / "half").joinpath("adapter_model.safetensors").unlink()
    assert ["cfo"] == [found.id for found in adapter_folders(tmp_path)]


@pytest.mark.parametrize(("place", "complaint"), [("my adapter", "my adapter"), ("a" * 129, "adapter id")])
def test_a_place_that_gives_no_name_is_told(tmp_path: Path, place: str, complaint: str) -> None:
    adapter(tmp_path / place)
    with pytest.raises(InvalidRequest, match=f"(?s){complaint}.*rename the folder"):
        adapter_folders(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"nowhere.*no such folder"):
        adapter_folders(tmp_path / "nowhere")
