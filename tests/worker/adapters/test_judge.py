"""The judge: what strangers' files hold is read in a process that they may end, and the worker goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.digest import adapter_digest
from lorapool.shared.errors import AdapterUnavailable, CheckpointError
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.adapters import model_outline
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.adapters.checkpoint import ModelSpec
from lorapool.worker.adapters.files import AdapterFiles
from lorapool.worker.adapters.judge import Judge
from lorapool.worker.confinement.process import ProcessEnded
from tests.worker.checkpoints import edit_config, save_adapter, tiny_llama

LLAMA = tiny_llama()
WEIGHTS = "adapter_model.safetensors"
TEMPLATE = "chat_template.jinja"
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def judge(root: Path, max_rank: int = 64, **limits: float) -> Judge:
    files = AdapterFiles((root,), (), CacheFolder(root / "cache"), 1 << 30)
    outline = model_outline.packed(ModelSpec.of(LLAMA, ["tiny/llama"]), max_rank)
    return Judge(files, outline, {"bos_token": "<s>"}, "{{ messages[0].content }}", **limits)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def judged(root: Path) -> Iterator[Judge]:
    made = judge(root, template_s=1.0)
    yield made
    made.close()


@pytest.fixture
def folder(root: Path, request: pytest.FixtureRequest) -> Path:
    path = root / f"adapter-{abs(hash(request.node.name))}"
    save_adapter(path, LLAMA)
    return path


def record(folder: Path, **fields: object) -> AdapterRecord:
    digest = adapter_digest(folder) if (folder / WEIGHTS).is_file() else "0" * 64
    return AdapterRecord.model_validate({"id": "cfo", "version": "1", "digest": digest, "uri": str(folder), **fields})


def test_a_sound_adapter_is_described(judged: Judge, folder: Path) -> None:
    """Rank, size, targets, and the chat template that lies beside it; what the record has stays."""
    (folder / TEMPLATE).write_text("<{{ messages[0].content }}>")
    facts = judged.check(record(folder, base_model="recorded"))
    assert facts == {
        "rank": 4,
        "bytes": facts["bytes"],
        "format": "lora",
        "targets": ("q_proj", "v_proj"),
        "prompt_format": PromptFormat(template="<{{ messages[0].content }}>"),
    }
    assert facts["bytes"] > 1000


def test_what_is_wrong_with_its_content_is_named(judged: Judge, folder: Path) -> None:
    """In the checker's words, and the same process judges on."""
    edit_config(folder, rank_pattern={"\ud800": "x"})
    with pytest.raises(CheckpointError, match="rank_pattern"):
        judged.check(record(folder))
    edit_config(folder, rank_pattern={".?" * 40 + "Q": 4})
    before = judged._process.pid
    assert 4 == judged.check(record(folder))["rank"]
    assert before == judged._process.pid


def test_a_config_nested_without_end_is_refused(judged: Judge, folder: Path) -> None:
    """JSON a hundred thousand deep."""
    digest = adapter_digest(folder)
    (folder / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="not JSON"):
        judged.check(AdapterRecord(id="cfo", version="1", digest=digest, uri=str(folder)))


def test_changed_files_are_refused(judged: Judge, folder: Path) -> None:
    """Another digest than was registered."""
    with pytest.raises(CheckpointError, match="registered as"):
        judged.check(record(folder, digest="0" * 64))


@pytest.mark.parametrize("template", ["{% if %}", "{{ messages[9].content.x }}", "{{ cycler.__init__.__globals__ }}"])
def test_a_template_that_does_not_work_is_refused_before_it_serves(judged: Judge, folder: Path, template: str) -> None:
    """It cannot write a first message, or reaches for what it must not see."""
    with pytest.raises(CheckpointError, match="prompt format"):
        judged.check(record(folder, prompt_format={"template": template}))


def test_a_template_without_end_ends_the_judge_and_no_more(judged: Judge, folder: Path) -> None:
    """It is named in what is raised, and the next adapter has a judge."""
    with pytest.raises(ProcessEnded, match="took too long, at its chat template"):
        judged.check(record(folder, prompt_format={"template": ENDLESS}))
    assert 4 == judged.check(record(folder))["rank"]


def test_a_judge_that_is_killed_is_missed(judged: Judge, folder: Path) -> None:
    """As by the system when memory is short: said with the signal, and the next adapter has another judge."""
    judged.check(record(folder))
    pid = judged._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    killing = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killing.start()
    with pytest.raises(ProcessEnded, match="SIGKILL"):
        judged.check(record(folder))
    assert 4 == judged.check(record(folder))["rank"]


def test_a_judge_that_waits_for_storage_is_no_verdict(root: Path, folder: Path) -> None:
    """It used none of its time: a mount that hangs is this worker's trouble."""
    made = judge(root, timeout_s=1.0)
    made._process.warm()
    pid = made._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(AdapterUnavailable, match="no answer within 1 s"):
        made.check(record(folder))
    made.close()


def test_what_this_worker_cannot_reach_is_no_verdict(judged: Judge, folder: Path, root: Path) -> None:
    """No such folder here, a rank beyond this worker's own, a file that may not be read."""
    with pytest.raises(AdapterUnavailable, match="no such folder"):
        judged.check(record(folder, uri=str(root / "elsewhere")))
    small = judge(root, max_rank=3)
    with pytest.raises(AdapterUnavailable, match="--max-rank 4"):
        small.check(record(folder))
    small.close()


def test_a_file_that_expands_is_bounded(judged: Judge, folder: Path) -> None:
    """Half precision becomes float32, and more than once: within the memory that a file of its size may take."""
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, folder / WEIGHTS)
    assert 4 == judged.check(record(folder))["rank"]


def test_the_parent_needs_no_torch() -> None:
    """A worker's loop makes a judge of plain data; only the process that judges imports torch."""
    code = "import sys, lorapool.worker.adapters.judge; sys.exit('torch' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code]).returncode
    json.dumps(model_outline.packed(ModelSpec.of(LLAMA), 64))
