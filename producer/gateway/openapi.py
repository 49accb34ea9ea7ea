"""``/openapi.json``: what this gateway serves, for people, generators of clients, and its own fuzz test.

Written by hand beside the code that reads the same fields; a test compares them. A module's part, where it has one, is
its ``paths()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lorapool.shared import __version__

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}


def _number(low: float, high: float, default: float | None = None) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high} | ({} if default is None else {"default": default})


def _whole(low: int, high: int, default: int | None = None) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high} | ({} if default is None else {"default": default})


def _object(required: tuple[str, ...] = (), *, closed: bool = True, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": not closed,
    }


def _list(items: Schema, low: int = 0, high: int = 1024) -> Schema:
    return {"type": "array", "items": items, "minItems": low, "maxItems": high}


def _one_of(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_MODEL = {**_TEXT, "maxLength": 512, "description": "A ref, alias or id of an adapter, or the base model's name."}
_STOP = _one_of({**_TEXT, "minLength": 1}, _list({**_TEXT, "minLength": 1, "maxLength": 256}, 0, 16))
_SHARED: dict[str, Any] = {
    "model": _MODEL,
    "n": _whole(1, 128, 1),
    "stop": _STOP,
    "seed": {"type": "integer"},
    "temperature": _number(0, 2, 1),
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1},
    "frequency_penalty": _number(-2, 2, 0),
    "presence_penalty": _number(-2, 2, 0),
    "logit_bias": {"type": "object", "additionalProperties": _number(-100, 100), "maxProperties": 1024},
    "max_tokens": _whole(1, 1_000_000),
    "max_completion_tokens": _whole(1, 1_000_000),
    "stream": _FLAG,
    "stream_options": _object(include_usage=_FLAG),
    "user": {**_TEXT, "description": "Who is asked for; the agent, where the pool has no keys."},
    "metadata": {"type": "object", "additionalProperties": {**_TEXT, "maxLength": 512}, "maxProperties": 16},
    "response_format": {"type": "object", "description": "text, json_schema, json_object, regex, choice or lark."},
    "top_k": _whole(0, 1_000_000, 0),
    "min_p": _number(0, 1, 0),
    "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 10, "default": 1},
    "min_tokens": _whole(0, 1_000_000, 0),
    "ignore_eos": _FLAG,
    "priority": {"type": "string", "enum": ["high", "normal", "low"]},
    "deadline": {**_number(0, 366 * 86_400), "description": "Seconds after which the job expires."},
}
_PARTS = _list(_object(("type", "text"), type={"type": "string", "enum": ["text"]}, text=_TEXT), 1)
_CALLED = _object(("name", "arguments"), name=_TEXT, arguments=_TEXT)
_CALL = _object(("id", "function"), closed=False, id=_TEXT, function=_CALLED)
_MESSAGE = _object(
    ("role",),
    role={"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
    content=_one_of(_TEXT, _PARTS),
    name=_TEXT,
    tool_calls=_list(_CALL, 0, 128),
    tool_call_id=_TEXT,
)
_FUNCTION = _object(("name",), closed=False, name=_TEXT, description=_TEXT, parameters={"type": "object"}, strict=_FLAG)
_TOOL = _object(("type", "function"), type={"type": "string", "enum": ["function"]}, function=_FUNCTION)
_CHAT = _object(
    ("model", "messages"),
    **_SHARED,
    messages=_list(_MESSAGE, 1),
    tools=_list(_TOOL, 0, 128),
    tool_choice=_one_of({"type": "string", "enum": ["auto", "none", "required"]}, {"type": "object"}),
    parallel_tool_calls=_FLAG,
    logprobs=_FLAG,
    top_logprobs=_whole(0, 20),
)
_IDS = _list(_whole(0, 2**31 - 1), 1)
_PLAIN = _object(
    ("model", "prompt"),
    **_SHARED,
    prompt=_one_of(_TEXT, _list(_TEXT, 1, 128), _IDS, _list(_IDS, 1, 128)),
    echo=_FLAG,
    logprobs=_whole(0, 20),
    best_of=_whole(1, 128),
)
_PARAMETERS = _object(
    adapter_id=_TEXT,
    do_sample=_FLAG,
    max_new_tokens=_whole(1, 1_000_000),
    temperature=_number(0, 2),
    top_k=_whole(0, 1_000_000),
    top_p={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    repetition_penalty={"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    frequency_penalty=_number(-2, 2),
    presence_penalty=_number(-2, 2),
    stop=_STOP,
    seed=_whole(0, 2**63 - 1),
    ignore_eos_token=_FLAG,
    return_full_text=_FLAG,
    details=_FLAG,
    return_k_alternatives=_whole(0, 20),
    response_format={"type": "object"},
    grammar={"type": "object"},
    priority=_SHARED["priority"],
    deadline=_SHARED["deadline"],
    user=_TEXT,
)
_GENERATE = _object(("inputs",), inputs=_TEXT, parameters=_PARAMETERS, stream=_FLAG)
_RESPONSE = _object(
    ("model", "input"),
    closed=False,
    model=_MODEL,
    input=_one_of(_TEXT, _list({"type": "object"}, 1)),
    instructions=_TEXT,
    previous_response_id=_TEXT,
    stream=_FLAG,
    background=_FLAG,
    store=_FLAG,
    temperature=_SHARED["temperature"],
    top_p=_SHARED["top_p"],
    max_output_tokens=_SHARED["max_tokens"],
    tools=_list({"type": "object"}, 0, 128),
    tool_choice=_one_of({"type": "string", "enum": ["auto", "none", "required"]}, {"type": "object"}),
    text={"type": "object"},
    metadata=_SHARED["metadata"],
)
_ERROR = _object(
    ("error",),
    error=_object(
        ("message", "type", "param", "code"),
        message=_TEXT,
        type=_TEXT,
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    ),
)
_BATCH = _object(
    ("input_file_id", "endpoint", "completion_window"),
    input_file_id=_TEXT,
    endpoint={"type": "string", "enum": ["/v1/chat/completions", "/v1/completions", "/v1/responses"]},
    completion_window={**_TEXT, "pattern": "^[1-9][0-9]{0,5}[mhd]$", "description": "1m to 7d, such as 24h."},
    metadata=_SHARED["metadata"],
)
_UPLOAD = _object(
    ("file", "purpose"), closed=False, file={"type": "string", "contentMediaType": "application/jsonl"}, purpose=_TEXT
)
SCHEMAS: Mapping[str, Schema] = {
    "ChatRequest": _CHAT,
    "CompletionRequest": _PLAIN,
    "GenerateRequest": _GENERATE,
    "ResponseRequest": _RESPONSE,
    "BatchRequest": _BATCH,
    "FileUpload": _UPLOAD,
    "Error": _ERROR,
}
_HEADERS = (
    ("Idempotency-Key", "The same key and body: the same job, however often it is sent."),
    ("Last-Event-ID", "The stream goes on after that event, at any replica."),
    ("x-lorapool-on-disconnect", "keep or cancel: what becomes of the jobs when the client goes away."),
)
_ASKED = [{"name": name, "in": "header", "description": text, "schema": _TEXT} for name, text in _HEADERS]
_ID = [{"name": "id", "in": "path", "required": True, "schema": _TEXT}]


def operation(summary: str, schema: str = "", parameters: list[Schema] | None = None) -> Schema:
    """One method of a path: ``schema`` names its body's."""
    refusal = {"description": "Why not.", "content": {"application/json": {"schema": _ref("Error")}}}
    found: Schema = {"summary": summary, "responses": {"200": {"description": "The answer."}, "default": refusal}}
    if parameters:
        found["parameters"] = parameters
    if schema:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(schema)}}}
    return found


def paths() -> dict[str, Schema]:
    """What is served, by path and method."""
    served: dict[str, Schema] = {
        "/v1/models": {"get": operation("What may be asked: adapters by ref, id and alias, and the base model.")},
        "/v1/models/{name}": {"get": operation("One of them.", parameters=[{**_ID[0], "name": "name"}])},
        **_of_batches(),
        **_of_responses(),
        "/generate": {"post": operation("LoRAX's and TGI's: one answer.", "GenerateRequest", _ASKED)},
        "/generate_stream": {"post": operation("LoRAX's and TGI's: an event a token.", "GenerateRequest", _ASKED)},
        "/": {"post": operation("Either of both, by `stream`.", "GenerateRequest", _ASKED)},
        "/info": {"get": operation("What serves here.")},
        "/health": {"get": operation("Whether it can take work.")},
    }
    for path, schema in (("/v1/chat/completions", "ChatRequest"), ("/v1/completions", "CompletionRequest")):
        served[path] = {"post": operation("An answer, or a stream of it.", schema, _ASKED)}
        served[f"{path}/{{id}}"] = {
            "get": operation("The answer to a request made before.", parameters=_ID),
            "delete": operation("Cancel its jobs.", parameters=_ID),
        }
        again = operation("The stream of a request made before, from Last-Event-ID on.", parameters=[*_ID, _ASKED[1]])
        served[f"{path}/{{id}}/stream"] = {"get": again}
    return served


def _of_batches() -> dict[str, Schema]:
    upload = operation("Store a file: a line for each request.")
    upload["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _ref("FileUpload")}}}
    return {
        "/v1/files": {"post": upload, "get": operation("Stored files, newest first.")},
        "/v1/files/{id}": {
            "get": operation("One of them.", parameters=_ID),
            "delete": operation("Delete it.", parameters=_ID),
        },
        "/v1/files/{id}/content": {"get": operation("Its content.", parameters=_ID)},
        "/v1/batches": {
            "post": operation("Have every line of a file asked, whatever dies meanwhile.", "BatchRequest"),
            "get": operation("Batches, newest first."),
        },
        "/v1/batches/{id}": {"get": operation("One of them.", parameters=_ID)},
        "/v1/batches/{id}/cancel": {"post": operation("End it.", parameters=_ID)},
    }


def _of_responses() -> dict[str, Schema]:
    again = operation("One of them; its stream, with `stream` and `starting_after`.", parameters=_ID)
    return {
        "/v1/responses": {"post": operation("An answer by the Responses API, kept.", "ResponseRequest", _ASKED[:1])},
        "/v1/responses/{id}": {"get": again, "delete": operation("Forget it.", parameters=_ID)},
        "/v1/responses/{id}/cancel": {"post": operation("End what runs in the background.", parameters=_ID)},
        "/v1/responses/{id}/input_items": {"get": operation("What it was asked with.", parameters=_ID)},
    }


async def page(_: Request) -> Response:
    """The whole."""
    info = {"title": "lorapool", "version": __version__, "description": "LoRA adapters on one base model."}
    return JSONResponse({"openapi": "3.1.0", "info": info, "paths": paths(), "components": {"schemas": dict(SCHEMAS)}})


def routes() -> list[BaseRoute]:
    """Its part of the app."""
    return [Route("/openapi.json", page)]
