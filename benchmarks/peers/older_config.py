"""The base model's folder as tools read it that know transformers' configs of version 4 only. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path


def with_rope_theta(model: str, folder: Path) -> Path:
    """``folder``, made to hold links to the files of ``model`` and a config that gives ``rope_theta`` at its top."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in Path(model).iterdir():
        if path.name != "config.json" and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    fields = json.loads((Path(model) / "config.json").read_text())
    rope = fields.pop("rope_parameters", {"rope_theta": fields.get("rope_theta", 10000.0)})
    config = {**fields, "rope_theta": rope["rope_theta"], "torch_dtype": fields.get("dtype", "float32")}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder
