"""Every sampling param, through a real server and the real worker, against the transformers processor of that name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lorapool.producer.client.client import Client
from lorapool.shared.errors import JobFailed
from lorapool.shared.job import Result, SamplingParams
from lorapool.worker.native.sampler import uniform
from tests.e2e.peft_reference import MARGIN, PeftReference
from tests.transformers_sampling import interval, warped

PROMPT = "cash, cash, cash, cash, cash, cash, cash,"  # goes on like that, unless a penalty forbids
CASH, COMMA = 8270, 28  # their ids
ADAPTER = "coo"
NEW_TOKENS = 10
NEAR = 1e-3  # of cumulative probability: logits computed in another order differ by about 1e-5 relative

CASES: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 1.3},
    "top_k": {"temperature": 1.0, "top_k": 3},
    "top_p": {"temperature": 1.0, "top_p": 0.6},
    "min_p": {"temperature": 1.0, "min_p": 0.2},
    "repetition_penalty": {"repetition_penalty": 1.8},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "presence_penalty": {"presence_penalty": 1.5},
    "min_new_tokens": {"min_new_tokens": NEW_TOKENS},
    "logit_bias": {"logit_bias": {CASH: -4.5, COMMA: -100, 1000: 0.5}},
    "all together": {
        "temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.1,
        "frequency_penalty": 0.3, "presence_penalty": 0.2, "min_new_tokens": 4, "logit_bias": {CASH: -1.5},
    },
}  # fmt: skip


@pytest.fixture
async def results(pool: Client) -> list[Result]:
    """All cases at once, in one batch."""
    asked = [
        {"adapter": ADAPTER, "prompt": PROMPT, "seed": 100 + index, "max_new_tokens": NEW_TOKENS, **params}
        for index, params in enumerate(CASES.values())
    ]
    answers = await pool.gather(asked, timeout=90)
    assert all(isinstance(answer, Result) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Result)]


async def test_each_param_agrees_with_transformers(results: list[Result], reference: PeftReference) -> None:
    """Every token is the one that the seed's number picks from the distribution transformers makes of PEFT's logits."""
    prompt = reference.prompt_ids(PROMPT, None)
    rows = reference.logits(ADAPTER, [prompt + result.token_ids for result in results])
    eos = sorted({reference.tokenizer.eos_token_id})
    for (name, params), result, logits in zip(CASES.items(), results, rows, strict=True):
        for index, token in enumerate(result.token_ids):
            scores = warped(
                logits[len(prompt) + index - 1], prompt, result.token_ids[:index], SamplingParams(**params), eos
            )
            _agrees(f"{name}, token {index}", scores, token, result.seed, index, sampled="temperature" in params)


async def test_each_param_changes_the_answer(results: list[Result], pool: Client) -> None:
    """No param is ignored: but for min_new_tokens, each gives other tokens than plain greedy decoding."""
    plain = await (await pool.submit(ADAPTER, PROMPT, max_new_tokens=NEW_TOKENS)).result(60)
    ignored = [name for name, result in zip(CASES, results, strict=True) if result.token_ids == plain.token_ids]
    assert set(ignored) <= {"min_new_tokens"}


async def test_min_new_tokens_and_ignore_eos_hold_off_the_end(pool: Client) -> None:
    """A chat that would end early goes on past its end token, or without one."""
    chat = {"adapter": "cfo", "messages": [{"role": "user", "content": "Shall we hire?"}], "max_new_tokens": 60}
    answers = await pool.gather(
        [chat, {**chat, "min_new_tokens": 50}, {**chat, "ignore_eos": True}, {**chat, "max_new_tokens": 3}], timeout=90
    )
    ends = [
        (answer.finish_reason.value, answer.usage.completion_tokens) for answer in answers if isinstance(answer, Result)
    ]
    assert ends[0][0] == "eos_token"
    assert ends[0][1] < 50 <= ends[1][1]
    assert ends[2:] == [("length", 60), ("length", 3)]


async def test_what_is_told_of_tokens_is_what_the_model_gave_them(pool: Client, reference: PeftReference) -> None:
    """The most probable tokens at each place by PEFT's raw logits, whatever params there are; the bytes of an answer's
    tokens are its text; and a stream brings them once each, as the result has them."""
    params = {"max_new_tokens": NEW_TOKENS, "temperature": 1.0, "seed": 5, "logit_bias": {COMMA: -3}}
    job = await pool.submit(ADAPTER, "Bäcker, 🥨 und", stream=True, logprobs=True, top_logprobs=5, **params)
    deltas = [delta async for delta in job.stream(60)]
    result = await job.result(60)
    told = result.token_logprobs or ()
    assert told == tuple(token for delta in deltas for token in delta.more.logprobs)
    assert result.token_ids == tuple(token.id for token in told)
    assert result.text.encode() == b"".join(token.text for token in told)
    prompt = reference.prompt_ids("Bäcker, 🥨 und", None)
    [logits] = reference.logits(ADAPTER, [prompt + result.token_ids])
    for place, token in enumerate(told):
        table = torch.log_softmax(logits[len(prompt) + place - 1].float(), -1)
        best = torch.topk(table, 6)
        assert [one.logprob for one in token.top] == pytest.approx(best.values.tolist()[:5], abs=2e-3)
        assert {one.id for one in token.top} <= {*best.indices.tolist()}
        assert token.logprob == pytest.approx(float(table[token.id]), abs=2e-3)


async def test_a_prompt_of_token_ids_is_taken_as_it_is(pool: Client, reference: PeftReference) -> None:
    """The answer is that to the text they spell; an id that is none is refused by name, and harms nobody."""
    ids = list(reference.prompt_ids(PROMPT, None))
    inputs: list[dict[str, Any]] = [
        {"prompt": PROMPT},
        {"prompt_ids": ids},
        {"prompt_ids": [1, 2**31 - 1]},
        {"prompt": PROMPT, "logit_bias": {60_000: 1}},
    ]
    asked = [{"adapter": ADAPTER, "max_new_tokens": 4, **given} for given in inputs]
    text, same, beyond, bias = await pool.gather(asked, timeout=60)
    assert isinstance(text, Result) and isinstance(same, Result)
    assert (text.token_ids, text.usage) == (same.token_ids, same.usage)
    for refused, named in ((beyond, "2147483647"), (bias, "60000")):
        assert isinstance(refused, JobFailed) and refused.error == "InvalidRequest"
        assert named in str(refused) and "the vocabulary has 49152 tokens" in str(refused)


def _agrees(where: str, scores: torch.Tensor, token: int, seed: int, index: int, *, sampled: bool) -> None:
    if sampled:
        low, high = interval(scores, token)
        assert scores[token] > float("-inf"), where
        assert low - NEAR <= uniform(seed, index) <= high + NEAR, where
    else:
        assert float(scores.max() - scores[token]) <= MARGIN, where
