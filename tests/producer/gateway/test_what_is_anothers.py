"""What is another's is not there: every route with another agent's key."""

from __future__ import annotations

import httpx

from lorapool.producer.testing import CannedPool
from tests.producer.gateway.guarded import ASKING, WRONG, Door, ask, filled, routes


async def owned(http: httpx.AsyncClient, paths: set[str]) -> dict[str, str]:
    """One of each kind that there is, by the path below which it is found."""
    chat = await ask(http, "ceo")
    plain = await http.post("/v1/completions", json={"model": "ceo", "prompt": "How long?"})
    response = await http.post("/v1/responses", json={"model": "ceo", "input": "How long?"})
    made = {"/v1/chat/completions": chat, "/v1/completions": plain, "/v1/responses": response}
    if "/v1/files" in paths:
        line = (
            '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "ceo", "messages": '
        )
        line += '[{"role": "user", "content": "x"}]}}'
        form = {"purpose": "batch"}
        made["/v1/files"] = await http.post("/v1/files", data=form, files={"file": ("a.jsonl", line.encode())})
    if "/v1/batches" in paths:
        file_id = made["/v1/files"].json()["id"]
        batch = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made["/v1/batches"] = await http.post("/v1/batches", json=batch)
    return {path: answer.json()["id"] for path, answer in made.items()}


async def test_what_is_anothers_is_not_there(door: Door) -> None:
    """Every route that names a thing, with another agent's key: 404, as for a thing that never was; for its owner it is
    there, and an operator sees it. A route of a new kind has to be named in ``owned``."""
    keys = door.client.keys
    mine, other, operator = await keys.add("mine"), await keys.add("other"), await keys.add("ops", role="operator")
    named = [
        (method, path) for method, path in routes(door.app.routes) if "{" in path and not path.startswith("/console")
    ]
    named = [(method, path) for method, path in named if path not in {"/v1/{path:path}", "/v1/models/{name:path}"}]
    async with door.asking(mine) as owner, door.asking(other) as stranger, door.asking(operator) as ops:
        made = await owned(owner, {path for _, path in routes(door.app.routes)})
        for method, path in named:
            kind = path[: path.index("/{")]
            theirs = path.replace(path[path.index("{") : path.index("}") + 1], made[kind])
            answer = await stranger.request(method, theirs)
            nothing = await stranger.request(method, theirs.replace(made[kind], f"{made[kind][:-4]}zzzz"))
            assert (404, 404) == (answer.status_code, nothing.status_code), (method, path, answer.text)
            if method == "GET":
                assert 404 not in {(await who.get(theirs)).status_code for who in (owner, ops)}, path


async def test_lists_have_ones_own_alone(door: Door) -> None:
    """Every route that lists: another agent's key sees nothing there."""
    mine, other = await door.client.keys.add("mine"), await door.client.keys.add("other")
    paths = {path for method, path in routes(door.app.routes) if method == "GET" and "{" not in path}
    async with door.asking(mine) as owner, door.asking(other) as stranger:
        made = await owned(owner, {path for _, path in routes(door.app.routes)})
        for path in paths - {"/health", "/v1/models"}:
            text = (await stranger.get(path)).text
            assert not [one for one in made.values() if one in text], path


async def test_what_is_anothers_is_not_referred_to(door: Door, pool: CannedPool) -> None:
    """Neither as the response to go on from, nor as the file of a batch, nor as the stream to read on."""
    mine, other = await door.client.keys.add("mine"), await door.client.keys.add("other")
    async with door.asking(mine) as owner, door.asking(other) as stranger:
        made = await owned(owner, {path for _, path in routes(door.app.routes)})
        before = len(pool.requests)
        for theirs, nothing in ((made[kind], f"{made[kind][:-4]}zzzz") for kind in ("/v1/responses", "/v1/files")):
            told = []
            for name in (theirs, nothing):
                follow = {"model": "ceo", "input": "And?", "previous_response_id": name}
                batch = {"input_file_id": name, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
                path, body = ("/v1/batches", batch) if name.startswith("file") else ("/v1/responses", follow)
                answer = await stranger.post(path, json=body)
                told.append((answer.status_code, answer.text.replace(name, "")))
            assert told[0] == told[1]
            assert told[0][0] in {400, 404}
        for path in ("/v1/chat/completions", "/v1/completions"):
            asked = {**ASKING[path], "model": "ceo", "stream": True}
            answer = await stranger.post(path, json=asked, headers={"last-event-id": f"{made[path]}:0.0.0"})
            assert (404, False) == (answer.status_code, "Onwards" in answer.text)
        assert before == len(pool.requests)


async def test_the_console_lets_in_nobody_without_a_session(door: Door) -> None:
    """Whatever its routes, and whatever key a request brings: one has to sign in, with an operator's."""
    keys = door.client.keys
    secrets = "", WRONG, await keys.add("mine"), await keys.add("ops", role="operator")
    ways_in = {"/console/sign-in", "/console/assets"}
    asked = [(m, path) for m, path in routes(door.app.routes) if path.startswith("/console") and path not in ways_in]
    assert len(asked) > 20
    for secret in secrets:
        async with door.asking(secret, base_url="https://llm.example.com") as http:
            for method, path in asked:
                answer = await http.request(method, filled(path), headers={"origin": "https://llm.example.com"})
                signing = answer.headers.get("location", "").startswith("/console/sign-in")
                assert answer.status_code == 401 or (answer.status_code == 303 and signing), (method, path)


async def test_one_idempotency_key_of_two_callers(door: Door, pool: CannedPool) -> None:
    """Is two jobs: neither gets the other's answer."""
    answers = []
    for name in ("mine", "other"):
        async with door.asking(await door.client.keys.add(name)) as http:
            answers.append((await http.post("/v1/chat/completions", headers={"idempotency-key": "one"}, json={
                "model": "ceo", "messages": [{"role": "user", "content": "How long?"}],
            })).json()["id"])  # fmt: skip
    assert 2 == len(set(answers)) == len(pool.requests)
