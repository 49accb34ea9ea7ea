"""A gateway with an operator's Redis user: callers with keys are served, and the server denies it nothing."""

from __future__ import annotations

from typing import Any

import httpx

from lorapool.producer.client.client import Client
from lorapool.producer.gateway.app import create_app
from lorapool.producer.gateway.settings import GatewaySettings
from tests.fleet import WorkerProcess
from tests.trust.conftest import CFO, POOL, denied, url_of


async def test_a_gateway(server: str, worker: WorkerProcess, admin: Any, tmp_path: Any) -> None:
    """Keys, models, a completion, a response, a file, a batch and the console's door."""
    async with Client(url_of(server, "operator"), pool=POOL) as client:
        await client.adapters.register("cfo", str(CFO), version="1", timeout=60)
        secret = await client.keys.add("board-7", adapters=["cfo*"], jobs_per_minute=100, tokens_per_day=1_000_000)
        operator = await client.keys.add("ops", role="operator")
        transport = httpx.ASGITransport(app=create_app(client, GatewaySettings(files=str(tmp_path))))
        options = {"headers": {"authorization": f"Bearer {secret}"}, "timeout": 60}
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", **options) as http:
            assert {"cfo", "cfo@1"} == {model["id"] for model in (await http.get("/v1/models")).json()["data"]}
            asked = {"model": "cfo", "prompt": "How long?", "max_tokens": 4}
            assert 4 == (await http.post("/v1/completions", json=asked)).json()["usage"]["completion_tokens"]
            response = await http.post("/v1/responses", json={"model": "cfo", "input": "x", "background": True})
            assert 200 == response.status_code, response.text
            assert 200 == (await http.get(f"/v1/responses/{response.json()['id']}")).status_code
            file = await http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"{}")})
            assert 200 == file.status_code
            assert 200 == (await http.get("/v1/batches")).status_code
            form = {"key": operator}
            local = {"origin": "http://gateway"}
            assert 303 == (await http.post("/console/sign-in", data=form, headers=local)).status_code
        await client.keys.revoke("board-7")
        assert "key revoked" == (await client.audit.recent(1))[0].what
    assert [] == denied(admin)
