"""The seams that today's AOS agents have: an ``IMLService``, and an OpenAI-shaped client with ``complete``.

They are thin, over LoRAxServer or over a gateway, and raise when a request fails: an agent must never take an error for
an answer.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

from lorapool.producer.aos.errors import RequestRefused
from lorapool.producer.aos.server import LoRAxServer
from lorapool.shared.errors import InvalidRequest

REQUEST_TIMEOUT_S = 300.0
MAX_ERROR_BYTES = 1 << 16
_FINISH = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}


class IMLService(Protocol):
    """What an agent of AOS has injected. Training and pipelines are asked of others."""

    async def infer(self, agent_id: str, prompt: str) -> dict[str, Any]: ...


class PoolMLService:
    """An IMLService on a pool: an agent's id, an alias or an adapter's id, is what answers."""

    def __init__(self, server: LoRAxServer) -> None:
        self._server = server

    async def infer(self, agent_id: str, prompt: str, **kwargs: Any) -> dict[str, Any]:
        """``{"text": …}`` and the other keys of an answer. ``adapter`` chooses another for this request alone."""
        reply = await self._server.inference_for_agent(agent_id, prompt, **kwargs)
        return {"text": reply["generated_text"], **reply}

    async def trigger_lora_training(self, *_: Any, **__: Any) -> NoReturn:
        raise _not_here("trigger_lora_training")

    async def run_pipeline(self, *_: Any, **__: Any) -> NoReturn:
        raise _not_here("run_pipeline")


class PoolChatClient:
    """What AOS injects into its LoRAInferenceClient: ``complete``, with the adapter in ``extra_body``."""

    def __init__(self, server: LoRAxServer) -> None:
        self._server = server

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int = 1024,
        temperature: float = 0.7,
        extra_body: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """An OpenAI-shaped chat completion. ``extra_body``: ``adapter_id`` or ``persona`` (none: the base model),
        ``model_extras`` (the same names; what they say must agree), ``agent_id``, ``timeout``."""
        extras = _extras(extra_body)
        own = {"messages": messages, "max_new_tokens": max_tokens, "temperature": temperature}
        reply = await self._server.ask(None, None, None, {**own, "adapter": _adapter(extras), **extras, **params})
        return _completion(reply)


class HttpChatClient:
    """The same ``complete`` for an agent that reaches the pool by its gateway alone, at ``base_url`` (with ``/v1``)."""

    def __init__(self, base_url: str, api_key: str = "") -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InvalidRequest(f"base_url = {base_url!r}: expected such as http://127.0.0.1:8080/v1")
        self._url, self._api_key = f"{base_url.rstrip('/')}/chat/completions", api_key

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int = 1024,
        temperature: float = 0.7,
        extra_body: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """As PoolChatClient's. Raises RequestRefused with the gateway's own words, OSError where it does not answer."""
        extras = _extras(extra_body)
        timeout_s = float(extras.pop("timeout", REQUEST_TIMEOUT_S))
        body = {"messages": list(messages), "max_tokens": max_tokens, "temperature": temperature, **params}
        body |= {"model": _adapter(extras)}
        if "agent_id" in extras:
            body["user"] = extras.pop("agent_id")
        return await asyncio.to_thread(self._post, body | extras, timeout_s)

    def _post(self, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)  # noqa: S310 - http alone
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - http alone
                completion: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise RequestRefused(error.code, _words(error)) from None
        return completion


def _words(error: urllib.error.HTTPError) -> str:
    """What the gateway said, or HTTP's own word for it."""
    try:
        return str(json.loads(error.read(MAX_ERROR_BYTES))["error"]["message"])
    except (OSError, ValueError, LookupError, TypeError):
        return str(error.reason)


def _adapter(extras: dict[str, Any]) -> str:
    """The one that answers, taken out of ``extras``; the base model where none is named."""
    names = [extras.pop(name) for name in ("adapter_id", "persona") if name in extras]
    return next((name for name in names if name), "_base")


def _extras(extra_body: Mapping[str, Any] | None) -> dict[str, Any]:
    body = dict(extra_body or {})
    inner = dict(body.pop("model_extras", None) or {})
    for name in body.keys() & inner.keys():
        if body[name] != inner[name]:
            raise InvalidRequest(f"extra_body has {name} {body[name]!r} and in model_extras {inner[name]!r}")
    return inner | body


def _completion(reply: Mapping[str, Any]) -> dict[str, Any]:
    prompt_tokens, completion_tokens = reply["prompt_tokens"], reply["tokens_generated"]
    version = reply["adapter_version"]
    return {
        "id": reply["request_id"],
        "object": "chat.completion",
        "created": int(time.time()),
        "model": reply["base_model"] if version is None else f"{reply['adapter_id']}@{version}",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply["generated_text"]},
                "finish_reason": _FINISH[reply["finish_reason"]],
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _not_here(name: str) -> NotImplementedError:
    return NotImplementedError(f"{name}: training stays outside lorapool; register its outcome with register_adapter")
