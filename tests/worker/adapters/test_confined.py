"""Adapter uris come from outside: only what lies under an allowed root is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lorapool.shared.errors import AdapterUnavailable, CheckpointError
from lorapool.worker.adapters.confined import confined


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An allowed root with one adapter, and a secret folder beside it."""
    for folder in ("root/good", "secret"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "adapter_config.json").write_text("{}")
        (tmp_path / folder / "adapter_model.safetensors").write_bytes(b"")
    return tmp_path / "root"


@pytest.mark.parametrize(
    "form", ["file://{}/good", "{}/good", "file://localhost{}/good", "{}/x/../good", "file://{}/go%6Fd"]
)
def test_a_folder_under_the_root_is_found(root, form):
    """uris and plain paths both work."""
    assert root / "good" == confined(form.format(root), [root])


@pytest.mark.parametrize(
    "form", ["{}/../secret", "file://{}/../secret", "file://{}/%2e%2e/secret", "/etc", "{}/../rootless"]
)
def test_outside_the_root_is_refused(root, form):
    """``..``, also encoded, and absolute paths do not lead out; nor does a name that begins like the root."""
    with pytest.raises(AdapterUnavailable, match="outside"):
        confined(form.format(root), [root])


def test_a_symlinked_folder_does_not_lead_out(root):
    """A link under the root to a folder outside is outside."""
    (root / "link").symlink_to(root.parent / "secret")
    with pytest.raises(AdapterUnavailable, match="outside"):
        confined(f"{root}/link", [root])


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_symlinked_file_does_not_lead_out(root, name):
    """Nor does a link from within an adapter's folder."""
    (root / "good" / name).unlink()
    (root / "good" / name).symlink_to(root.parent / "secret" / name)
    with pytest.raises(AdapterUnavailable, match="outside"):
        confined(f"{root}/good", [root])


def test_a_link_that_stays_inside_is_followed(root):
    """Hub caches are made of links; those under the root are fine."""
    (root / "current").symlink_to(root / "good")
    assert root / "good" == confined(f"{root}/current", [root])


def test_a_pipe_is_refused_unopened(root):
    """Opening a pipe would hang the loader."""
    (root / "good" / "adapter_model.safetensors").unlink()
    os.mkfifo(root / "good" / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        confined(f"{root}/good", [root])


@pytest.mark.parametrize("uri", ["s3://bucket/x", "http://host/x", "file://host/x", "relative/x", "", "/a\0b"])
def test_other_uris_are_refused(root, uri):
    """Only local absolute places."""
    with pytest.raises(CheckpointError):
        confined(uri, [root])


def test_no_roots_names_the_flag():
    """Without a root nothing may be read, and the message says how to allow one."""
    with pytest.raises(AdapterUnavailable, match="--adapter-root"):
        confined("/tmp", [])


def test_a_missing_folder_is_said_to_be_missing(root):
    """Under the root, not there."""
    with pytest.raises(AdapterUnavailable, match="no such folder"):
        confined(f"{root}/none", [root])
