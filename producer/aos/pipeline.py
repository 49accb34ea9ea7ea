"""MLPipelineManager: the calls that AOS's agents make, on top of LoRAxServer. None of them raises for a failed request.

Serving only: what trains stays outside lorapool, and its outcome is registered here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from lorapool.producer.aos.config import MLConfig
from lorapool.producer.aos.errors import NotRunning
from lorapool.producer.aos.reply import about, failure
from lorapool.producer.aos.server import LoRAxServer

_DISABLED = "LoRAx is disabled: set enable_lorax (AOS_ENABLE_LORAX) to use it"
_ELSEWHERE = frozenset({
    "train_model", "train_lora_adapter", "train_dpo_adapter", "train_adapter_with_pipeline_ops",
    "run_azure_ml_pipeline_full", "collect_preference_data", "get_dpo_status", "get_training_status",
})  # fmt: skip


class MLPipelineManager:
    """``last_error`` says why a call returned False."""

    def __init__(self, config: MLConfig) -> None:
        self.config = config
        self.last_error: Exception | None = None
        self.lorax_server = LoRAxServer(config.lorax()) if config.enable_lorax else None

    def __getattr__(self, name: str) -> Any:
        if name in _ELSEWHERE:
            raise AttributeError(
                f"{name}: training stays outside lorapool; train with PEFT, save as safetensors, and hand the folder "
                "to register_lorax_adapter"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def start_lorax_server(self) -> bool:
        """Attach to the pool; see ``LoRAxServer.start``. False if disabled."""
        if self.lorax_server is None:
            self.last_error = NotRunning(_DISABLED)
            return False
        started = await self.lorax_server.start()
        self.last_error = self.lorax_server.last_error
        return started

    async def stop_lorax_server(self) -> bool:
        """Detach; see ``LoRAxServer.stop``. True if there was never a server."""
        if self.lorax_server is None:
            return True
        stopped = await self.lorax_server.stop()
        self.last_error = self.lorax_server.last_error
        return stopped

    def register_lorax_adapter(
        self,
        agent_role: str,
        adapter_path: str,
        adapter_id: str | None = None,
        version: str = "1.0.0",
        metadata: dict[str, Any] | None = None,
    ) -> bool:
        """Register a trained adapter for a role, before or after the start; see ``register_adapter``.

        The id is the role's unless given. False, with ``last_error``, when it was refused.
        """
        if self.lorax_server is None:
            self.last_error = NotRunning(_DISABLED)
            return False
        self.last_error = None
        try:
            self.lorax_server.register(agent_role, adapter_path, adapter_id, version, metadata)
        except Exception as error:  # noqa: BLE001 - AOS's contract: a bool; the error stays here to be read
            self.last_error = error
        return self.last_error is None

    async def lorax_inference(
        self,
        agent_role: str,
        prompt: str | None,
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The answer of a role's adapter, or a dict with ``error``, ``error_type`` and ``agent_role``.

        ``kwargs`` as in ``LoRAxServer.inference``, and for this request alone ``purpose`` (CEO in ``leadership`` is
        the role CEO.leadership) or ``adapter`` (a ref, alias or id).
        """
        arguments = {"max_new_tokens": max_new_tokens, "temperature": temperature} | kwargs
        if self.lorax_server is None:
            return failure(NotRunning(_DISABLED), {"agent_role": agent_role, "prompt": prompt})
        try:
            return await self.lorax_server.ask(agent_role, None, prompt, arguments)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - AOS's contract: a dict, never an exception
            return failure(error, {"agent_role": agent_role, "prompt": prompt})

    async def lorax_batch_inference(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """``agent_role``, ``prompt`` and ``params`` each; same length and order, a failure stands in its place."""
        if self.lorax_server is None:
            return [failure(NotRunning(_DISABLED), about(request)) for request in requests]
        return await self.lorax_server.batch_inference(requests)

    def get_lorax_status(self) -> dict[str, Any]:
        """The server's status, and ``enabled`` and ``initialized`` (attached)."""
        if self.lorax_server is None:
            return {"enabled": False, "initialized": False, "running": False, "message": _DISABLED}
        return self._status(self.lorax_server.get_status())

    async def lorax_status(self) -> dict[str, Any]:
        """``get_lorax_status`` without blocking."""
        return self.get_lorax_status() if self.lorax_server is None else self._status(await self.lorax_server.status())

    def get_lorax_adapter_stats(self, agent_role: str) -> dict[str, Any] | None:
        """Counters of the adapter that a role means, and the role's own; None if it means none."""
        return None if self.lorax_server is None else self.lorax_server.get_agent_stats(agent_role)

    async def lorax_adapter_stats(self, agent_role: str) -> dict[str, Any] | None:
        """``get_lorax_adapter_stats`` without blocking."""
        return None if self.lorax_server is None else await self.lorax_server.agent_stats(agent_role)

    def _status(self, status: dict[str, Any]) -> dict[str, Any]:
        attached = self.lorax_server is not None and self.lorax_server.attached
        message = {} if attached else {"message": "not started: await start_lorax_server()"}
        return {"enabled": True, "initialized": attached, **message, **status}
