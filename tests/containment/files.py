"""Real adapter files for containment tests: workers over the fake runner find and judge them as any others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorapool.worker.adapters import model_outline
from lorapool.worker.adapters.checkpoint import ModelSpec
from tests.worker.checkpoints import edit_config, save_adapter, tiny_llama


@dataclass(frozen=True)
class AdapterFolder:
    """A folder of adapters of one tiny model."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> AdapterFolder:
        """With the model's outline beside it."""
        outline = model_outline.packed(ModelSpec.of(tiny_llama()), 64)
        (root / "outline.json").write_text(json.dumps(outline))
        return cls(root)

    def add(self, name: str, *, template: str = "", **config: Any) -> Path:
        """A sound adapter, but for what is changed in its config, and the chat template beside it."""
        path = self.root / name
        save_adapter(path, tiny_llama(), seed=len(name))
        if config:
            edit_config(path, **config)
        if template:
            (path / "chat_template.jinja").write_text(template)
        return path

    @property
    def model(self) -> dict[str, str]:
        """Options of a fake model whose workers look at these files."""
        return {"outline": str(self.root / "outline.json"), "below": str(self.root)}

    @property
    def mounted(self) -> dict[str, list[str]]:
        """Options of a worker that may read them."""
        return {"adapter_roots": [str(self.root)]}
