"""Structured answers of the real model: a real server, a real worker, real adapters, beside rows that are free."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lorapool.producer.client.client import Client
from lorapool.shared.errors import InvalidRequest, JobFailed
from lorapool.shared.job import FinishReason, Result
from tests.length import at_length
from tests.structured.hostile import HOSTILE
from tests.structured.schemas import FEW, SCHEMAS, Schema

ASK = "Tell me of a person, a city and a price. Answer in JSON."
FREE = [
    {"adapter": name, "prompt": "Our plan for the next year is", "max_new_tokens": 24, "seed": 1}
    for name in ("cfo", None)
]
WARM = {"temperature": 0.7, "seed": 7}


def asked(form: Mapping[str, Any], adapter: str | None = None, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": ASK}]
    return {"adapter": adapter, "messages": messages, "response_format": form, "max_new_tokens": 120, **options}


async def all_answers(pool: Client, schemas: Mapping[str, Schema], **options: Any) -> dict[str, Result]:
    """Each schema's, by the base model and an adapter in turn; free rows go beside them, and are as they were alone."""
    alone = [result.token_ids for result in await pool.gather(FREE)]
    forms = [
        asked({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, ("ceo", None)[at % 2], **options)
        for at, schema in enumerate(schemas.values())
    ]
    *results, one, other = await pool.gather([*forms, *FREE])
    assert alone == [one.token_ids, other.token_ids]
    for result in results:
        assert isinstance(result, Result), result
    return dict(zip(schemas, results, strict=True))


def check(schemas: Mapping[str, Schema], results: Mapping[str, Result], share: float) -> None:
    """Each that was finished validates, and so many were."""
    finished = {name: result for name, result in results.items() if result.finish_reason is FinishReason.EOS_TOKEN}
    for name, result in finished.items():
        Draft202012Validator(schemas[name]).validate(json.loads(result.text))
    others = {result.finish_reason for name, result in results.items() if name not in finished}
    assert others <= {FinishReason.LENGTH}
    assert len(finished) >= share * len(results), sorted(results.keys() - finished.keys())


async def test_finished_answers_fit_their_schemas(pool: Client) -> None:
    """Of each family some, greedy, in batches with adapters and free rows, whose tokens are as ever."""
    check(FEW, await all_answers(pool, FEW), 0.8)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("options", [{}, {**WARM, "max_new_tokens": 240}])
async def test_two_hundred_schemas_are_answered(pool: Client, options: dict[str, Any]) -> None:
    """Greedy; and drawn, which rambles in texts without a bound."""
    check(SCHEMAS, await all_answers(pool, SCHEMAS, **options), 0.9)


async def test_each_form_is_held_to(pool: Client) -> None:
    """An expression, a choice, any object, a grammar; a stream brings the same text."""
    words = asked({"type": "regex", "regex": "[A-Z][a-z]{2,8}, [0-9]{3}"}, "cmo", **WARM)
    choice = asked({"type": "choice", "choices": ["Köln", "Bari", "Łódź"]}, **WARM)
    grammar = asked({"type": "grammar", "grammar": 'start: "It is " ("on" | "off") "."'}, **WARM)
    anything = asked({"type": "json_object"}, max_new_tokens=200)
    text, city, state, value = await pool.gather([words, choice, grammar, anything])
    assert re.fullmatch("[A-Z][a-z]{2,8}, [0-9]{3}", text.text)
    assert city.text in {"Köln", "Bari", "Łódź"}
    assert state.text in {"It is on.", "It is off."}
    assert value.text.startswith("{")
    assert value.finish_reason is FinishReason.LENGTH or isinstance(json.loads(value.text), dict)
    job = await pool.submit(**words, stream=True)
    assert text.text == "".join([delta.text async for delta in job.stream()])
    assert text.token_ids == (await job.result()).token_ids


async def test_what_is_cut_off_is_said_to_be(pool: Client) -> None:
    """Inside a structure, by the number of tokens: the reason is length, and nothing is validated."""
    form = {"type": "json_schema", "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 50}}
    [result] = await pool.gather([asked(form, max_new_tokens=9)])
    assert (FinishReason.LENGTH, 9) == (result.finish_reason, result.usage.completion_tokens)


async def test_the_grammar_wins_over_other_wishes(pool: Client) -> None:
    """No end before so many tokens, no end at all, a token that is wanted above all others."""
    for options in ({"min_new_tokens": 60}, {"ignore_eos": True}, {"logit_bias": {40: 100.0}}):
        [result] = await pool.gather([asked({"type": "choice", "choices": ["yes", "no"]}, **options)])
        assert result.text in {"yes", "no"}
        assert FinishReason.EOS_TOKEN is result.finish_reason


async def test_an_answer_that_only_the_end_shows_to_be_wrong_fails_with_the_reason(pool: Client) -> None:
    """oneOf, where both fit: held as anyOf while it is written; not tried again, as it would be the same again."""
    schema = {"oneOf": [{"const": "same"}, {"type": "string", "const": "same"}]}
    job = await pool.submit(**asked({"type": "json_schema", "schema": schema}))
    with pytest.raises(JobFailed, match="valid under each of") as failed:
        await job.result()
    assert ("InvalidAnswer", 1) == (failed.value.error, failed.value.attempts)


async def test_hostile_forms_harm_nobody(pool: Client) -> None:
    """Refused at submission, failed for good with the reason, or answered; free rows beside them are right."""
    alone = [result.token_ids for result in await pool.gather(FREE)]
    forms = dict(islice(HOSTILE.items(), at_length(8, len(HOSTILE))))
    hostile = [asked(form, max_new_tokens=16, agent="mallory") for form in forms.values()]
    results = await pool.gather([*hostile, *FREE])
    for name, result in zip(forms, results, strict=False):
        assert isinstance(result, Result | JobFailed | InvalidRequest), name
        if isinstance(result, JobFailed):
            assert ("GrammarRefused", 1) == (result.error, result.attempts), name
    assert alone == [result.token_ids for result in results[-2:]]
