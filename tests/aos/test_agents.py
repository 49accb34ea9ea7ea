"""The seams that agents of AOS have: IMLService and the OpenAI-shaped ``complete``; over a real worker."""

from __future__ import annotations

import pytest

from lorapool.producer import InvalidRequest
from lorapool.producer.aos import IMLService, LoRAxServer, PoolChatClient, PoolMLService, UnknownAdapterId
from tests.aos.conftest import MakeAdapter, Serve, text_of
from tests.fleet import WorkerProcess


async def test_a_service_infers_for_an_agent(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """``infer(agent_id, prompt)`` gives ``text``, counted under that agent; another adapter may be asked for."""
    ceo, leadership = make_adapter("ceo"), make_adapter("leadership")
    server.registry.register_adapter("ceo", "ceo-agent", str(ceo))
    server.registry.register_adapter("leadership", "leadership", str(leadership))
    service: IMLService = PoolMLService(server)
    assert text_of("hello", ceo, 256) == (await service.infer("ceo-agent", "hello"))["text"]
    reply = await PoolMLService(server).infer("ceo-agent", "hello", adapter="leadership", max_new_tokens=4)
    assert (text_of("hello", leadership, 4), "ceo-agent") == (reply["text"], reply["agent_role"])
    stats = server.get_agent_stats("ceo-agent")
    assert stats is not None
    assert (1, 2) == (stats["inference_count"], stats["role_stats"]["succeeded"])


async def test_a_service_never_answers_with_an_error(server: LoRAxServer) -> None:
    """It raises; what trains is elsewhere and says so."""
    with pytest.raises(UnknownAdapterId, match="ceo-agent"):
        await PoolMLService(server).infer("ceo-agent", "hello")
    with pytest.raises(NotImplementedError, match="training stays outside"):
        await PoolMLService(server).trigger_lora_training({})


async def test_a_role_without_adapter_may_mean_the_base_model(serve: Serve, worker: WorkerProcess) -> None:
    """Only where the policy says so, and then the answer says so."""
    server = serve(unknown_role="base")
    assert await server.start()
    reply = await server.inference_for_agent("NOBODY", "hello", max_new_tokens=3)
    assert (True, "_base", None) == (reply["used_base"], reply["adapter_id"], reply["adapter_version"])


async def test_extras_that_disagree_are_refused(server: LoRAxServer) -> None:
    """``extra_body`` and its ``model_extras`` must name one adapter."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"adapter_id": "a", "model_extras": {"adapter_id": "b"}}
    with pytest.raises(InvalidRequest, match="'a' and in model_extras 'b'"):
        await PoolChatClient(server).complete(messages, extra_body=body)
    with pytest.raises(UnknownAdapterId, match="nobody"):
        await PoolChatClient(server).complete(messages, extra_body={"persona": "nobody"})
