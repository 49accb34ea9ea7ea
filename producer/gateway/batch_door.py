"""BatchDoor: the lines of a batch, asked and answered as the endpoint would that they name.

A line has no connection: it is not streamed, goes on from no stored response, and is answered when it is. Submits
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorapool.producer.client.request import Request
from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.chat_input import chat_completion, chat_request
from lorapool.producer.gateway.completion_input import completion_answer, completion_request, echoes, prompts_of
from lorapool.producer.gateway.errors import ApiError, invalid, of_error
from lorapool.producer.gateway.fields import given, metadata_of
from lorapool.producer.gateway.models import Models
from lorapool.producer.gateway.parameters import as_asked
from lorapool.producer.gateway.responses.answer import finished
from lorapool.producer.gateway.responses.items import messages_of, with_ids
from lorapool.producer.gateway.responses.request import create_request
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.shared.batches.batch_record import BatchRecord
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Result
from lorapool.shared.responses.response_record import ResponseRecord

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``requests`` of a body, a caller and the default number of tokens; ``answer`` of body, results and id."""

    requests: Callable[[Body, Caller, int], list[Request]]
    answer: Callable[[Body, Sequence[Result], str], dict[str, Any]]


class BatchDoor:
    """Of one pool; ``models`` are looked up as for any request."""

    def __init__(self, models: Models, settings: GatewaySettings) -> None:
        self._models, self._settings = models, settings

    async def requests(self, batch: BatchRecord, body: Body) -> list[Request]:
        """By exact refs. Raises ApiError, and what a lookup does."""
        if body.get("stream"):
            raise invalid(f"stream = {body['stream']!r:.20}: a line of a batch is answered in a file")
        caller = Caller(batch.key, batch.agent, batch.adapters, operator=batch.operator)
        requests = ENDPOINTS[batch.endpoint].requests(body, caller, self._settings.default_max_tokens)
        record = await self._models.find(str(requests[0].adapter), caller)
        return [replace(request, adapter=record.ref) for request in requests]

    def answer(self, batch: BatchRecord, body: Body, results: Sequence[Result], answer_id: str) -> dict[str, Any]:
        """What the endpoint would answer."""
        return ENDPOINTS[batch.endpoint].answer(body, results, answer_id)

    def refusal(self, error: BaseException, body: Body) -> tuple[int, dict[str, Any]]:
        """In the caller's words where it is the caller's to mend."""
        known = as_asked(error, body) if isinstance(error, InvalidRequest) else of_error(error)
        return known.status, known.body()


def _plain_requests(body: Body, caller: Caller, _: int) -> list[Request]:
    return completion_request(body, caller)


def _chat_requests(body: Body, caller: Caller, default_max_tokens: int) -> list[Request]:
    return chat_request(body, caller, default_max_tokens=default_max_tokens)


def _response_requests(body: Body, caller: Caller, default_max_tokens: int) -> list[Request]:
    asked = create_request(body, caller, default_max_tokens=default_max_tokens)
    for name, value in (("previous_response_id", asked.previous), ("background", asked.background)):
        if value:
            raise ApiError(400, f"{name} = {value!r:.60}: not served in a batch", param=name)
    return [Request(messages=messages_of(asked.items, asked.instructions), params=asked.params, **asked.options)]


def _chat(body: Body, results: Sequence[Result], answer_id: str) -> dict[str, Any]:
    return chat_completion(results, **_facts(body, f"chatcmpl-{answer_id}"))


def _plain(body: Body, results: Sequence[Result], answer_id: str) -> dict[str, Any]:
    prompts = prompts_of(body)
    each = len(results) // len(prompts)
    echoed = [str(prompt) for prompt in prompts for _ in range(each)] if echoes(given(body)) else []
    facts = _facts(body, f"cmpl-{answer_id}")
    return completion_answer(results, **facts, prompts=len(prompts), echoed=echoed)


def _response(body: Body, results: Sequence[Result], answer_id: str) -> dict[str, Any]:
    asked = create_request(body, Caller(None, results[0].agent), default_max_tokens=1)
    record = ResponseRecord(
        id=answer_id,
        agent=results[0].agent,
        created_ms=round(time.time() * 1000),
        echo={**asked.echo, "store": False},
        items=tuple(with_ids(asked.items, answer_id)),
    )
    return finished(record, results[0])


def _facts(body: Body, completion_id: str) -> dict[str, Any]:
    facts = {"completion_id": completion_id, "model": body["model"], "created": int(time.time())}
    return {**facts, "metadata": metadata_of(body)}


ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint(_chat_requests, _chat),
    "/v1/completions": Endpoint(_plain_requests, _plain),
    "/v1/responses": Endpoint(_response_requests, _response),
}
