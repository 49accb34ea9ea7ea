"""The seams that today's AOS agents have: an ``IMLService``, and an OpenAI-shaped client with ``complete``.

Both are thin over LoRAxServer and raise when a request fails: an agent must never take an error for an answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

from lorapool.producer.aos.server import LoRAxServer
from lorapool.shared.errors import InvalidRequest

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
        names = [extras.pop(name) for name in ("adapter_id", "persona") if name in extras]
        adapter = next((name for name in names if name), "_base")
        own = {"messages": messages, "max_new_tokens": max_tokens, "temperature": temperature}
        reply = await self._server.ask(None, None, None, {**own, "adapter": adapter, **extras, **params})
        return _completion(reply)


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
