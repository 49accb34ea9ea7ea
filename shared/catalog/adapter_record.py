"""AdapterRecord: what the catalog knows of one adapter version, and what an adapter's own config tells of it.

One hash with readable fields: texts and numbers as they are, lists and maps as JSON. A record of an older release lacks
fields and keeps working. Judges nothing: what the config asks for is checked by a worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorapool.shared.errors import UnsupportedVersion
from lorapool.shared.job import BASE_REF
from lorapool.shared.malformed import text_map
from lorapool.shared.plain_text import plain_text, plain_values
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.wire import explain_validation

RECORD_VERSION = 1  # of the stored record; what only adds fields keeps it
MAX_PATH_CHARACTERS = 4096  # no uri is longer, nor any other text of a record
MAX_RANK = 1 << 31
MAX_TOLD = 256  # target modules told of, and characters of each thing told
_QUANTIZED = re.compile(r"(?:bnb-)?[48]-?bit|int[48]|nf4|fp8|gptq|awq", re.IGNORECASE)
_NOT_REGISTERED = {
    *("status", "reason", "registered_ms", "aliases", "verified", "verified_by", "problem"),
    "canary",
    *("judging", "judging_until_ms", "judge_deaths", "judges_dead", "not_here"),
}
_NOT_HERE = "not_here:"  # and a worker's name
_JSON_FIELDS = ("targets", "parents", "metadata", "prompt_format")


class AdapterRecord(BaseModel):
    """One adapter version. ``base_model`` and ``base_revision`` are what its own config says of its base.

    ``format`` is lora, rslora, dora, or a sum of them; ``quantized`` what the config says of a quantised base in
    training, empty if nothing. ``parents`` are what it was trained on top of: such an adapter is not served alone.
    ``prompt_format`` None means the base model's chat template. Owner, metadata and rank are for people.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    version: str
    digest: str
    uri: str
    base_model: str = ""
    base_revision: str = ""
    status: Literal["pending", "ready", "refused", "removed"] = "pending"
    reason: str = ""
    rank: int = 0
    targets: tuple[str, ...] = ()
    format: str = ""
    quantized: str = ""
    prompt_format: PromptFormat | None = None
    parents: tuple[str, ...] = ()
    owner: str = ""
    aliases: tuple[str, ...] = ()
    registered_ms: int = 0
    verified: str = ""  # the wish that a worker answered last, and its answer
    verified_by: str = ""
    problem: str = ""
    judging: str = ""  # the worker that looks at a pending one, which vanished if that time is past
    judging_until_ms: int = 0
    judge_deaths: int = 0
    judges_dead: str = ""
    canary: str = ""  # of the alias that it was found by: a percentage, and the ref that takes such a part of its jobs
    not_here: dict[str, str] = Field(default_factory=dict)  # worker -> why it cannot reach a pending one
    metadata: dict[str, str] = Field(default_factory=dict)

    @property
    def ref(self) -> str:
        return BASE_REF if self.id == BASE_REF else f"{self.id}@{self.version}"

    @classmethod
    def of_reply(cls, reply: Any) -> AdapterRecord:
        """From the hash as Redis gives it; fields that this release does not know are ignored.

        Raises UnsupportedVersion for what it cannot read.
        """
        fields: dict[str, Any] = {**text_map(reply)}
        what = f"record of adapter {fields.get('id', '?')}@{fields.get('version', '?')}"
        if (v := fields.pop("v", "1")) != str(RECORD_VERSION):
            raise UnsupportedVersion(f"{what} has schema version {v}, this release reads {RECORD_VERSION}; upgrade it")
        try:
            notes = {name: fields.pop(name) for name in tuple(fields) if name.startswith(_NOT_HERE)}
            fields["not_here"] = {name.removeprefix(_NOT_HERE): reason for name, reason in notes.items()}
            fields["aliases"] = tuple(fields.get("aliases", "").split())
            for name in _JSON_FIELDS:
                if text := fields.pop(name, ""):
                    fields[name] = json.loads(text)
            return cls.model_validate(fields)
        except (ValueError, RecursionError) as error:  # pydantic's too
            complaint = explain_validation(error) if isinstance(error, ValidationError) else str(error)
            raise UnsupportedVersion(f"{what} cannot be read by this release: {complaint}") from None

    def stored(self) -> dict[str, str]:
        """The fields that registering writes; status and times are the catalog's own."""
        own = self.model_dump(exclude=_NOT_REGISTERED)
        return {**encoded(own), "v": str(RECORD_VERSION), "aliases": " ".join(self.aliases)}


def encoded(fields: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a record as its hash has them."""
    return {name: _text(value) for name, value in fields.items()}


def _text(value: Any) -> str:
    if isinstance(value, PromptFormat):  # valid text, every character of which counts
        return json.dumps(value.model_dump(), sort_keys=True)
    if value is None or value == ():
        return ""
    if isinstance(value, tuple | list | dict):
        return json.dumps(plain_values(value), sort_keys=True)
    return plain_text(str(value), MAX_PATH_CHARACTERS)


def told_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a record that an adapter_config.json tells; what is not there or no such thing is left out."""
    settings = {
        "rank": rank if isinstance(rank := config.get("r"), int) and abs(rank) < MAX_RANK else 0,
        "base_model": config.get("base_model_name_or_path"),
        "base_revision": config.get("revision"),
        "targets": _targets(config.get("target_modules")),
        "format": _format(config),
        "quantized": _quantized(config),
    }
    kinds = {"rank": int, "targets": tuple}
    right = {name: value for name, value in settings.items() if value and isinstance(value, kinds.get(name, str))}
    return {name: plain_text(value, MAX_TOLD) if isinstance(value, str) else value for name, value in right.items()}


def _targets(named: object) -> tuple[str, ...]:
    """Names of modules, or one expression that means them."""
    targets = (
        sorted(map(str, named)) if isinstance(named, list) else [named] if isinstance(named, str) and named else []
    )
    return tuple(plain_text(target, MAX_TOLD) for target in targets[:MAX_TOLD])


def _format(config: Mapping[str, Any]) -> str:
    kind = str(config.get("peft_type", "LORA")).casefold()
    marks = {"use_dora": "dora", "use_rslora": "rslora"}
    matches = [word for name, word in marks.items() if config.get(name) is True]
    return "+".join(matches) if matches and kind == "lora" else kind


def _quantized(config: Mapping[str, Any]) -> str:
    if str(config.get("init_lora_weights")).casefold() == "loftq":
        return "loftq"
    if config.get("use_qalora") is True:
        return "qalora"
    match = _QUANTIZED.search(str(config.get("base_model_name_or_path") or "").rpartition("/")[2])
    return match[0].casefold() if match else ""


BASE_RECORD = AdapterRecord(id=BASE_REF, version="", digest="", uri="", status="ready")
