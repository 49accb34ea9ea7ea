"""Judge: has a new adapter read in a process of its own (judge_child.py): its facts, or why it is to be refused.

Finds the files here (fetching remote ones); all that they hold is read there, within limits of time and memory. Made
from plain data: the outline of the base model, which the process that has the model packs. Does not choose what is
judged, nor record the verdict: that is Validator's. Knows no Redis, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.errors import AdapterUnavailable, CheckpointError
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.adapters.files import AdapterFiles
from lorapool.worker.confinement.process import ConfinedProcess, NoAnswer
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.text.template_process import COMPUTES_S as TEMPLATE_S

COMPUTES_S = 60.0  # of its own time, one adapter
TIMEOUT_S = 300.0  # of ours: a slow mount, a busy machine
CHECK_S = 900.0  # in all, with a large adapter's download


class Judge:
    """``outline``: as ``model_outline.packed`` gives it; ``special`` and ``template`` are the base model's special
    tokens and chat template. Starts its process when first asked, and again when an adapter has ended it."""

    def __init__(
        self,
        files: AdapterFiles,
        outline: Mapping[str, Any],
        special: Mapping[str, Any],
        template: str,
        *,
        computes_s: float = COMPUTES_S,
        template_s: float = TEMPLATE_S,  # as long as it may compute for a job's prompt
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._files = files
        setup = {"outline": outline, "special": dict(special), "template": template}
        module = "lorapool.worker.adapters.judge_child"
        times = (str(computes_s), str(template_s))
        self._process = ConfinedProcess(module, *times, timeout_s=timeout_s, setup=lambda: setup)

    def check(self, record: AdapterRecord) -> dict[str, Any]:
        """Facts to record with the verdict ``ready``; blocks.

        Raises CheckpointError with the reason to refuse, AdapterUnavailable where that cannot be told here and now, and
        ProcessEnded where judging it ended the process.
        """
        source = AdapterSource(record.ref, record.digest, record.uri)
        answer = self._ask(record, source)
        if "refused" in answer and self._files.repaired(source):
            answer = self._ask(record, source)
        if "unavailable" in answer:
            raise AdapterUnavailable(answer["unavailable"])
        if "refused" in answer:
            raise CheckpointError(answer["refused"])
        return _lacking(record, answer["facts"])

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _ask(self, record: AdapterRecord, source: AdapterSource) -> dict[str, Any]:
        form = record.prompt_format
        with self._files.reading(source) as folder:
            request = {
                "folder": str(folder),
                "digest": record.digest,
                "prompt_format": form and form.model_dump(),
                "template": None if form else self._files.remote_template(record.uri),
            }
            try:
                return self._process.ask(request)
            except NoAnswer as error:
                raise AdapterUnavailable(f"its judge gave {error}") from None


def _lacking(record: AdapterRecord, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the files tell and the record lacks, its client not having seen them; rank and size are the files'."""
    lacking = {name: value for name, value in facts.items() if name in {"rank", "bytes"} or not getattr(record, name)}
    if "targets" in lacking:
        lacking["targets"] = tuple(lacking["targets"])
    if "prompt_format" in lacking:
        lacking["prompt_format"] = PromptFormat.model_validate(lacking["prompt_format"])
    return lacking
