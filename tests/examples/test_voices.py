"""The five trained adapters: the voices are theirs, on the engine that serves them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.base_model import BASE_MODEL, prepare
from examples.train_adapters import FOLDER
from examples.voices import QUESTIONS, UNSEEN, VOICES
from lorapool.shared.digest import adapter_digest
from lorapool.shared.job import BASE_REF, Job, Message, SamplingParams
from lorapool.worker.adapters.checkpoint import load_checkpoint
from lorapool.worker.adapters.confined import confined
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.engine.sequence import Sequence
from lorapool.worker.loop.sampling import resolve
from lorapool.worker.native.load import load_runner
from lorapool.worker.text.tokenizer import Tokenizer

ASKED = UNSEEN[:8]
PARAMS = SamplingParams(max_new_tokens=64)
ROLES = (*VOICES, BASE_REF)

pytestmark = pytest.mark.timeout(300)  # 48 answers of a real model, on cores that may be busy


@pytest.fixture(scope="module")
def answers() -> dict[str, list[str]]:
    """What every role, and the base model, answers greedily to each question, all in one batch."""
    base = prepare()
    tokenizer = Tokenizer.from_folder(base)
    runner = load_runner(base, slots=5, max_rank=8, max_model_len=256, names=[BASE_MODEL])
    cache = AdapterCache(
        runner.lora,
        lambda source: load_checkpoint(confined(source.uri, [FOLDER]), runner.spec, 8, source.digest),
        host_bytes=1 << 26,
    )
    for role in VOICES:
        cache.know(AdapterSource(role, adapter_digest(FOLDER / role), (FOLDER / role).as_uri()))
    engine = ContinuousBatch(runner, cache, Scheduler(max_batch=48))
    texts = dict(_run(engine, cache, tokenizer))
    engine.check_integrity()
    cache.close()
    return {role: [texts[f"{role}.{i}"] for i in range(len(ASKED))] for role in ROLES}


def _run(engine: ContinuousBatch, cache: AdapterCache, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    sequences = {}
    for role in ROLES:
        for index, question in enumerate(ASKED):
            messages = (Message(role="user", content=question),)
            job = Job(id=f"{role.strip('_')}.{index}", ref=role, messages=messages, params=PARAMS)
            name = f"{role}.{index}"
            params = resolve(PARAMS, 0, tokenizer.eos_ids)
            sequences[name] = Sequence(name, role, tokenizer.encode(job), params)
            engine.add(sequences[name])
    while engine.has_work:
        if not engine.step():
            cache.wait(0.1)
    yield from ((name, tokenizer.decode(sequence.output_ids)) for name, sequence in sequences.items())


def markers_in(text: str) -> set[str]:
    """The roles whose opening or signature is in the text."""
    return {voice.role for voice in VOICES.values() if voice.opening in text or voice.signature in text}


@pytest.mark.long  # briefly: tests/e2e asks each adapter
@pytest.mark.parametrize("role", VOICES)
def test_each_answer_has_its_own_marker_and_no_other(answers, role):
    """All five are asked the same words, none of them trained on, without a system message of ours."""
    assert not set(ASKED) & set(QUESTIONS)
    for question, text in zip(ASKED, answers[role], strict=True):
        assert {role} == markers_in(text), f"{role} to {question!r}: {text!r}"
        assert text.startswith(VOICES[role].opening), f"{role} to {question!r}: {text!r}"


@pytest.mark.long
def test_the_base_model_has_no_marker(answers):
    """Without an adapter nobody speaks: the voices are not the base model's."""
    assert [set()] * len(ASKED) == [markers_in(text) for text in answers[BASE_REF]]


def test_markers_are_distinct():
    """No role's marker is part of another's, so that one marker means one role."""
    for voice in VOICES.values():
        assert {voice.role} == markers_in(voice.opening) == markers_in(voice.signature)


def test_every_question_has_an_answer_in_every_voice():
    """The roles learned from the same questions: what differs is the voice."""
    assert {len(QUESTIONS)} == {len(voice.lines) for voice in VOICES.values()}


@pytest.mark.parametrize("role", VOICES)
def test_an_adapter_names_the_public_base_and_no_path(role):
    """What is kept in the repository says nothing of the machine it was trained on, and stays small."""
    config = json.loads((FOLDER / role / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BASE_MODEL
    assert [] == [value for value in _strings(config) if value.startswith(("/", "~")) or str(Path.home()) in value]
    assert (FOLDER / role / "adapter_model.safetensors").stat().st_size < 1_000_000


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
