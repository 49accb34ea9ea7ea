"""One prompt to many adapters: answers in order, and a batch that never shrinks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorapool.producer import Client, InvalidRequest, JobFailed, Result, ResultTimeout, UnknownAdapter
from lorapool.producer.sync import Client as SyncClient
from tests.producer.canned_worker import CannedWorker

Make = Callable[..., Path]
ROLES = ("ceo", "cfo", "cto")


async def register(client: Client, make_adapter: Make) -> None:
    for role in ROLES:
        await client.adapters.register(role, make_adapter(role), aliases=[f"{role}.board"])


async def test_every_role_answers_in_its_place(client: Client, worker: CannedWorker, make_adapter: Make) -> None:
    """Refs, aliases, the same one twice, the base model; what is missing is an error where it stands."""
    await register(client, make_adapter)
    asked = ["cto", "nobody", "CEO.Board", None, "cfo@1.0.0", "cto"]
    answers = await client.volley("How long is our runway?", asked, max_new_tokens=3, agent="board")
    served = [answer.adapter if isinstance(answer, Result) else type(answer) for answer in answers]
    assert ["cto@1.0.0", UnknownAdapter, "ceo@1.0.0", "_base", "cfo@1.0.0", "cto@1.0.0"] == served
    assert {"How"} == {answer.text.split(" ")[2] for answer in answers if isinstance(answer, Result)}
    assert 5 == (await client.agent_stats("board"))["succeeded"]


async def test_it_is_one_pipelined_call(
    client: Client, worker: CannedWorker, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All jobs leave together."""
    await register(client, make_adapter)
    calls: list[int] = []
    once = client._queue.enqueue_many

    async def counted(jobs: Any) -> Any:
        calls.append(len(jobs))
        return await once(jobs)

    monkeypatch.setattr(client._queue, "enqueue_many", counted)
    await client.volley("hello", ROLES)
    assert [3] == calls


async def test_what_fails_later_is_an_item_too(client: Client, worker: CannedWorker, make_adapter: Make) -> None:
    """A failed job, and one that takes too long."""
    await register(client, make_adapter)
    assert [JobFailed] * 3 == [type(answer) for answer in await client.volley("fail", ROLES)]
    assert [ResultTimeout] * 2 == [type(answer) for answer in await client.volley("hang", ROLES[:2], timeout=0.2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "x", "adapters": []}, "at least one"),
        ({"prompt": "x", "adapters": "cfo"}, "expected a list"),
        ({"adapters": ROLES}, "exactly one of prompt, prompt_ids and messages"),
        ({"prompt": "x", "adapters": ROLES, "temperature": 9}, "temperature"),
        ({"prompt": "x", "adapters": ROLES, "job_id": "mine"}, "job_id"),
    ],
)
async def test_what_is_wrong_with_all_is_said_once(client: Client, arguments: dict[str, Any], message: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequest, match=message):
        await client.volley(**arguments)


def test_the_blocking_twin_fires_too(redis_url: str, pool_name: str, threaded_worker: None) -> None:
    """With chat messages."""
    with SyncClient(redis_url, pool=pool_name) as pool:
        answers = pool.volley(messages=[{"role": "user", "content": "hi"}], adapters=[None, "nobody"], timeout=10)
    assert ["Result", "UnknownAdapter"] == [type(answer).__name__ for answer in answers]
