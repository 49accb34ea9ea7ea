"""Strangers: adapters made to harm, registered while jobs run, and what has become of each.

Their files are written by hand, as anybody can; workers find and judge them as any others, against the outline of a
model of one layer. A version may be refused, or served where that is harmless; it may not stay undecided.
"""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.digest import digest_of
from lorapool.shared.errors import RedisUnreachable
from lorapool.shared.prompt_format import PromptFormat
from tests.fleet import until
from tests.parts import catalog_of

RANK, WIDTH = 4, 8
DECIDED_S = 180.0  # a judge that is killed with its worker holds a version for half a minute, twice at most
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LOOPS = "{% if 'loop' in messages[0].content %}" + ENDLESS + "{% endif %}{{ messages[0].content }}"
LOOPING = "looping@1"


@dataclass(frozen=True)
class Stranger:
    """``says``: words of a fair refusal; ``served``: may be found sound as well."""

    name: str
    says: tuple[str, ...]
    config: dict[str, Any]
    garbage: bool = False
    template: str = ""
    served: bool = False


STRANGERS = (
    Stranger("expression", (), {"rank_pattern": {".?" * 40 + "Q": 4}, "alpha_pattern": {"(a+)+Q": 4}}, served=True),
    Stranger("surrogate", ("rank_pattern",), {"rank_pattern": {"\ud800": "x"}}),
    Stranger("garbage", ("safetensors", "header"), {}, garbage=True),
    Stranger("endless", ("ended its judge",), {}, template=ENDLESS),
)
VANISHED = "ended its judge"  # its judges were killed for other reasons: refused, until somebody registers it again


class Strangers:
    """``folder`` is where their files are, and the model's outline."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._outline = folder / "outline.json"
        self._outline.write_text(json.dumps(_outline()))
        self.ends: Counter[str] = Counter()
        self.complaints: list[str] = []

    @property
    def model(self) -> dict[str, str]:
        """Options of a fake model that looks at these files."""
        return {"outline": str(self._outline), "below": str(self._folder)}

    @property
    def mounted(self) -> dict[str, list[str]]:
        """Options of a worker that may read them."""
        return {"adapter_roots": [str(self._folder)]}

    async def looping(self, redis: Redis) -> dict[str, str]:
        """Register the one whose chats never end, as decided; ref → digest."""
        catalog, digest = catalog_of(redis, "default"), "d" * 64
        name, _, version = LOOPING.partition("@")
        await catalog.register(AdapterRecord(id=name, version=version, digest=digest, uri="file:///looping"))
        await catalog.decide(LOOPING, "ready", facts={"prompt_format": PromptFormat(template=LOOPS)})
        return {LOOPING: digest}

    async def register(self, redis: Redis, number: int) -> None:
        """The next of them, insisting, until it is decided or that takes too long."""
        stranger = STRANGERS[number % len(STRANGERS)]
        record = self._write(stranger, number)
        catalog = catalog_of(redis, "default")
        registered = False

        async def decided() -> AdapterRecord | None:
            nonlocal registered
            try:
                if not registered:
                    await catalog.register(record)
                    registered = True
                found = await catalog.get(record.ref)
            except RedisUnreachable:
                return None
            return None if found.status == "pending" else found

        try:
            found = await until(decided, DECIDED_S, every_s=0.2)
        except AssertionError:
            self.complaints.append(f"{record.ref} was not decided within {DECIDED_S:g} s")
        else:
            self._note(stranger, found)

    def _note(self, stranger: Stranger, found: AdapterRecord) -> None:
        fair = stranger.served if found.status == "ready" else _fair(stranger, found.reason)
        self.ends[f"{stranger.name} {found.status}"] += 1
        if not fair:
            self.complaints.append(f"{found.ref} is {found.status}: {found.reason!r}")

    def _write(self, stranger: Stranger, number: int) -> AdapterRecord:
        folder = self._folder / f"{stranger.name}-{number}"
        folder.mkdir()
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"], **stranger.config}
        weights = b"\xff" * 4096 if stranger.garbage else _weights()
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(weights)
        if stranger.template:
            (folder / "chat_template.jinja").write_text(stranger.template)
        digest = digest_of(config, [weights])
        return AdapterRecord(id=folder.name, version="1", digest=digest, uri=folder.as_uri())


def _fair(stranger: Stranger, reason: str) -> bool:
    return VANISHED in reason or any(word in reason for word in stranger.says)


def _outline() -> dict[str, Any]:
    """As model_outline.py packs a model of one module."""
    norms = base64.b64encode(struct.pack(f"<{WIDTH}f", *([1.0] * WIDTH))).decode()
    module = {"shape": [WIDTH, WIDTH], "kind": "linear", "dtype": "float32", "bias": False, "scale": 1.0}
    limits = {"max_rank": 64, "largest_bytes": 1 << 20}
    return {"modules": {"layers.0.q_proj": {**module, "norms": norms}}, "names": ["fake"], **limits}


def _weights() -> bytes:
    """A sound safetensors file for that module."""
    size = 4 * RANK * WIDTH
    prefix = "base_model.model.layers.0.q_proj.lora_"
    head = {
        f"{prefix}A.weight": {"dtype": "F32", "shape": [RANK, WIDTH], "data_offsets": [0, size]},
        f"{prefix}B.weight": {"dtype": "F32", "shape": [WIDTH, RANK], "data_offsets": [size, 2 * size]},
    }
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + struct.pack("<f", 0.5) * (2 * RANK * WIDTH)
