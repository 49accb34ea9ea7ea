"""A door without HTTP: a line's body is a model and a prompt, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorapool.producer.client.request import Request
from lorapool.shared.batches.batch_record import BatchRecord
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Result

ENDPOINT = "/v1/completions"


class PlainDoor:
    """``n`` in a body asks so often."""

    async def requests(self, batch: BatchRecord, body: Mapping[str, Any]) -> list[Request]:
        assert batch.id
        if "prompt" not in body:
            raise InvalidRequest("prompt: missing")
        if body["prompt"] == "crash":
            raise ZeroDivisionError
        params = {"max_new_tokens": body.get("max_tokens", 16)}
        request = Request(body.get("model"), body["prompt"], params=params)
        return [request] * body.get("n", 1)

    def answer(
        self, batch: BatchRecord, body: Mapping[str, Any], results: Sequence[Result], answer_id: str
    ) -> dict[str, Any]:
        assert batch.id
        assert body
        return {"id": answer_id, "choices": [{"text": result.text} for result in results]}

    def refusal(self, error: BaseException, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        assert body
        status = 400 if isinstance(error, InvalidRequest) else 500
        return status, {"error": {"message": str(error), "type": type(error).__name__}}
