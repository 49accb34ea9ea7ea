"""The process that judges adapters: ``python -m lorapool.worker.adapters.judge_child SECONDS TEMPLATE_SECONDS``.

Config, weights and chat template of a stranger are read and checked here, confined, against an outline of the base
model. One request a line, one verdict a line. Sees no environment of the worker's, no Redis, no base weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from lorapool.shared.catalog.adapter_record import told_by
from lorapool.shared.digest import WEIGHTS_NAME, read_config
from lorapool.shared.errors import AdapterUnavailable, CheckpointError, LorapoolError
from lorapool.shared.job import Message
from lorapool.shared.plain_text import plain_text
from lorapool.shared.prompt_format import PromptFormat, format_in
from lorapool.worker.adapters import model_outline
from lorapool.worker.adapters.checkpoint import load_checkpoint
from lorapool.worker.confinement import limits as confinement
from lorapool.worker.text.template_child import MORE_BYTES, rendered

COPIES = 8  # of the weights that reading and checking makes, in float32 of what may be float16
QUESTION = (Message(role="user", content="How long is our runway?"),)


def main(seconds: float, template_seconds: float) -> None:
    """Judge until the worker closes the pipe; reading for longer than ``seconds``, or a template that computes for
    longer than its own, ends the process."""
    torch.set_num_threads(1)
    confinement.serve(lambda setup: JudgeChild(setup, seconds, template_seconds).answer)


class JudgeChild:
    """``setup``: the ``outline`` of the base model, its ``special`` tokens and its chat ``template``."""

    def __init__(self, setup: dict[str, Any], seconds: float, template_seconds: float) -> None:
        self._spec, self._max_rank = model_outline.unpacked(setup["outline"]), int(setup["outline"]["max_rank"])
        self._special, self._template = setup["special"], setup["template"]
        self._seconds, self._template_seconds = seconds, template_seconds

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """``facts``, or in ``refused`` the reason, or in ``unavailable`` what keeps it from being read here."""
        try:
            return {"facts": self._facts(request)}
        except AdapterUnavailable as error:
            return {"unavailable": plain_text(str(error))}
        except OSError as error:
            return {"unavailable": plain_text(f"{type(error).__name__}: {error}")}
        except LorapoolError as error:
            return {"refused": plain_text(str(error))}
        except MemoryError:
            return {"refused": "reading it takes more memory than a file of its size may"}
        except Exception as error:  # noqa: BLE001  whatever a stranger's file does becomes words
            return {"refused": plain_text(f"validation failed: {type(error).__name__}: {error}")}

    def _facts(self, request: dict[str, Any]) -> dict[str, Any]:
        folder = Path(request["folder"])
        confinement.bound_time(self._seconds)
        confinement.report("its config and weights")
        confinement.bound_memory(MORE_BYTES + COPIES * _size(folder))
        weights = load_checkpoint(folder, self._spec, self._max_rank, request["digest"] or None)
        described = told_by(read_config(folder))
        form = _format(request, folder)
        confinement.bound_time(self._template_seconds)
        confinement.report("its chat template")
        self._try_format(form)
        facts = {**described, "rank": weights.rank, "bytes": weights.nbytes}
        return facts if form is None else {**facts, "prompt_format": form.model_dump()}

    def _try_format(self, form: PromptFormat | None) -> None:
        """Raises CheckpointError if an adapter's prompt format cannot write a first message."""
        if form is None:
            return
        if form.kind != "chat":
            text = form.render(QUESTION)
        elif template := form.template or self._template:
            answer = rendered(template, [message.model_dump() for message in QUESTION], self._special)
            if "error" in answer:
                raise CheckpointError(f"prompt format: messages do not fit the chat template: {answer['error']}")
            text = answer["text"]
        else:
            raise CheckpointError("prompt format: the base model has no chat template; give one, or another kind")
        if not text:
            raise CheckpointError("prompt format: it writes nothing for a first message")


def _format(request: dict[str, Any], folder: Path) -> PromptFormat | None:
    """As registered, else as the files say: a template that lies beside them, or was fetched apart."""
    if request["prompt_format"]:
        return PromptFormat.model_validate(request["prompt_format"])
    if request["template"] is None:
        return format_in(folder)
    return PromptFormat(template=request["template"]) if request["template"].strip() else None


def _size(folder: Path) -> int:
    try:
        return (folder / WEIGHTS_NAME).stat().st_size
    except OSError:
        return 0  # who reads it says what is missing


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
