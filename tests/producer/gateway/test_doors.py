"""The other doors: models, plain completions, LoRAX's API, and what is not served."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient
from openai.types import Completion, Model
from starlette.routing import Route

from lorapool.producer.gateway.app import create_app
from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.models import Models
from lorapool.producer.gateway.openapi import SCHEMAS, paths
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.producer.testing.canned import CannedPool
from tests.producer.gateway.conftest import RUNWAY
from tests.producer.gateway.events import chunks_of, events_of


async def test_models_are_listed_by_every_name(http: httpx.AsyncClient) -> None:
    """Ref, id and alias of what is ready, and the base model; each by itself too."""
    listed = (await http.get("/v1/models")).json()["data"]
    assert {"canned", "cfo@1", "cfo", "money"} == {model["id"] for model in listed}
    for model in listed:
        Model.model_validate(model)
    one = (await http.get("/v1/models/money")).json()
    assert ("money", "cfo@1", "canned") == (one["id"], one["root"], one["parent"])
    assert 404 == (await http.get("/v1/models/nobody")).status_code
    page = (await http.get("/v1/models?limit=1&after=canned")).json()
    assert ([listed[1]["id"]], True) == ([model["id"] for model in page["data"]], page["has_more"])


async def test_names_are_those_that_the_caller_may_ask(canned: CannedPool) -> None:
    """Who may not ask an adapter does not hear of it, as a model, in a list, or as a like name."""
    canned.answer("secret", "hush")
    caller = Caller("k", "desk", ("cfo*",))
    async with canned.client() as client:
        models = Models(client)
        assert "cfo@1" == (await models.find("money", caller)).ref
        assert {"cfo@1", "cfo", "money"} == {model.name for model in await models.listed(caller)}
        for name in ("secret", "secret@1", "secre", "_base", "canned"):
            with pytest.raises(ApiError) as unknown:
                await models.find(name, caller)
            assert 404 == unknown.value.status and "secret'" not in str(unknown.value).replace(repr(name), "")


async def test_plain_completions(http: httpx.AsyncClient) -> None:
    """Several prompts in one request, echoed, at once and as a stream."""
    body: dict[str, Any] = {"model": "cfo", "prompt": ["One: ", "Two: "], "echo": True, "n": 2}
    answer = (await http.post("/v1/completions", json=body)).json()
    Completion.model_validate(answer)
    want = [f"One: {RUNWAY}"] * 2 + [f"Two: {RUNWAY}"] * 2
    assert want == [choice["text"] for choice in answer["choices"]]
    assert {"prompt_tokens": 2, "completion_tokens": 20, "total_tokens": 22} == answer["usage"]
    chunks = chunks_of((await http.post("/v1/completions", json={**body, "stream": True})).text)
    texts = ["".join(c["choices"][0]["text"] for c in chunks if c["choices"][0]["index"] == i) for i in range(4)]
    assert want == texts


async def test_loraxs_own_client_form(http: httpx.AsyncClient) -> None:
    """/generate and / answer as LoRAX does, with details; no adapter is the base model; errors are in its form."""
    body = {"inputs": "How long?", "parameters": {"adapter_id": "cfo", "details": True, "adapter_source": "local"}}
    one = (await http.post("/generate", json=body)).json()
    assert (RUNWAY, "eos_token", 5) == (
        one["generated_text"],
        one["details"]["finish_reason"],
        one["details"]["generated_tokens"],
    )
    [listed] = (await http.post("/", json={"inputs": "How long?", "parameters": {"return_full_text": True}})).json()
    assert "How long?The base model says so." == listed["generated_text"]
    for change, status, kind in (
        ({"parameters": {"truncate": 5}}, 422, "validation"),
        ({"parameters": {"temperature": 9}}, 422, "validation"),
        ({"inputs": None}, 422, "validation"),
        ({"parameters": {"adapter_id": "nobody"}}, 404, "model_not_found"),
    ):
        refused = await http.post("/generate", json={**body, **change})
        assert (status, kind) == (refused.status_code, refused.json()["error_type"]), refused.text
        assert refused.json()["error"]


async def test_a_failed_generation_is_424(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """LoRAX's own word for it; within a stream too."""
    canned.fail("cfo", "Broken", "it broke", times=2)
    body = {"inputs": "x", "parameters": {"adapter_id": "cfo"}}
    refused = await http.post("/generate", json=body)
    assert (424, "generation") == (refused.status_code, refused.json()["error_type"])
    [last] = events_of((await http.post("/generate_stream", json=body)).text)
    assert "generation" == last.data["error_type"]


async def test_huggingfaces_client_reads_a_stream(url: str) -> None:
    """Token by token; the last, a special one, has the whole."""
    async with AsyncInferenceClient(url) as client:
        details = await client.text_generation("How long?", adapter_id="cfo", stream=True, details=True)
        tokens = [token async for token in details]
        assert RUNWAY == "".join(token.token.text for token in tokens if not token.token.special)
        assert RUNWAY == tokens[-1].generated_text and "eos_token" == tokens[-1].details.finish_reason
        assert "The base model says so." == await client.text_generation("x")


@pytest.mark.parametrize("path", ["embeddings", "images/generations", "audio/speech", "moderations", "nothing/of/ours"])
async def test_what_is_not_served_says_so(http: httpx.AsyncClient, path: str) -> None:
    """404 in the API's form, with the path and a reason."""
    refused = await http.post(f"/v1/{path}", json={})
    error = refused.json()["error"]
    assert (404, "not_served") == (refused.status_code, error["code"])
    assert f"POST /v1/{path} is not served" in error["message"]


async def test_paths_and_methods_that_are_none(http: httpx.AsyncClient) -> None:
    """The router's own refusals are in the API's form too."""
    for method, path, status in (
        ("GET", "/nope", 404),
        ("PUT", "/generate", 405),
        ("GET", "/v1/chat/completions", 404),
    ):
        refused = await http.request(method, path)
        assert (status, "not_served") == (refused.status_code, refused.json()["error"]["code"]), path


async def test_health_info_and_the_page(http: httpx.AsyncClient) -> None:
    """What is there for machines."""
    assert {"status": "ok"} == (await http.get("/health")).json()
    assert "canned" == (await http.get("/info")).json()["model_id"]
    page = (await http.get("/openapi.json")).json()
    assert paths() == page["paths"] and set(SCHEMAS) == set(page["components"]["schemas"])


async def test_the_page_has_every_path(canned: CannedPool) -> None:
    """What the app serves and what its page says are the same, the console apart."""
    async with canned.client() as client:
        served = {
            (re.sub(r":\w+}", "}", route.path), method.lower())
            for route in create_app(client, GatewaySettings()).routes
            if isinstance(route, Route)
            for method in (route.methods or ())
        }
    beside = {("/openapi.json", "get"), *((path, method) for path, method in served if path == "/v1/{path}")}
    on_page = {(path, method) for path, methods in paths().items() for method in methods}
    assert on_page == {(path, method) for path, method in served - beside if method != "head"}
