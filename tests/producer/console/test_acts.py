"""Acts: asked for once, done, written down with who did it."""

from __future__ import annotations

import re

import pytest

from lorapool.producer.console.app import ACTS
from lorapool.shared.queue.protocol import Settlement
from tests.fleet import until
from tests.parts import Queue


async def trail(client) -> list[tuple[str, str, str, str]]:
    return [(act.who, act.what, act.on, act.outcome) for act in await client.audit.recent()]


@pytest.mark.parametrize("act", [act for act in ACTS if act.title], ids=lambda act: act.what)
async def test_a_question_changes_nothing(console, client, act):
    """Its page asks, warns, and has a form that posts to the same address; asking is not acting."""
    path = re.sub(r"\{\w+\}", "cfo", act.path)
    page = await console.get(f"/console{path}")
    assert 200 == page.status_code
    assert act.warning.replace("'", "&#39;") in page.text
    assert f'method="post" action="/console{path}"' in page.text
    assert [] == await trail(client)


async def test_what_destroys_is_asked_for():
    """Only these act without a question: what they do is undone as easily."""
    assert {"resumed", "added schedule"} == {act.what for act in ACTS if not act.title}


async def test_pause_and_resume(console, client, add_adapter):
    """The adapter's state changes, the page that follows says so, and both are in the trail."""
    await add_adapter()
    answer = await console.send_form("/console/adapters/cfo/pause", follow_redirects=True)
    assert "cfo@1 is paused" in answer.text
    assert "paused" == (await client.onlooker.depths(["cfo@1"]))["cfo@1"].state
    assert "cfo@1 is paused: its" not in (await console.get("/console/adapters/cfo@1")).text  # said once
    await console.send_form("/console/adapters/cfo@1/resume")
    assert [("local", "resumed", "cfo@1", "done"), ("local", "paused", "cfo@1", "done")] == await trail(client)


async def test_the_trail_names_the_key(console, client, add_adapter):
    """Who signed in is who acted."""
    await add_adapter()
    key = await client.keys.add("ops", role="operator")
    await console.send_form("/console/sign-in", {"key": key})
    await console.send_form("/console/adapters/cfo/pause")
    assert ("ops", "paused", "cfo@1", "done") == (await trail(client))[0]


async def test_a_refused_act_is_written_down(console, client):
    """With the error's name."""
    assert 404 == (await console.send_form("/console/adapters/nobody/pause")).status_code
    assert [("local", "paused", "nobody", "UnknownAdapter")] == await trail(client)


async def test_cancel(console, client, add_adapter):
    """A waiting job ends."""
    await add_adapter()
    job = await client.submit("cfo", "Hello")
    await console.send_form(f"/console/jobs/{job.id}/cancel")
    assert "cancelled" == await job.state()
    assert ("local", "cancelled", job.id, "done") in await trail(client)


async def test_purge_waiting(console, client, add_adapter):
    """All that waits for the adapter ends."""
    await add_adapter()
    jobs = [await client.submit("cfo", f"Hello {number}") for number in range(3)]
    answer = await console.send_form("/console/adapters/cfo/purge", follow_redirects=True)
    assert "3 waiting jobs of cfo@1 cancelled" in answer.text
    assert {"cancelled"} == {await job.state() for job in jobs}


async def test_redrive_one_or_many(console, client, redis, pool_name, add_adapter):
    """Those that were marked run as new jobs; one that is refused holds up no other, and is told."""
    await add_adapter()
    jobs = [await client.submit("cfo", f"Hello {number}") for number in range(2)]
    await die(Queue(redis, pool_name), len(jobs))
    page = (await console.get("/console/dead")).text
    assert all(f'value="{job.id}"' in page for job in jobs)
    asked = await console.get("/console/dead/redrive", params={"job": [job.id for job in jobs]})
    assert "2 chosen" in asked.text
    answer = await console.send_form("/console/dead/redrive", {"job": [*(job.id for job in jobs), "0.nobody"]})
    answer = await console.get(answer.headers["location"])
    assert "2 submitted again, 1 refused" in answer.text
    letters = await client.upkeep.dead()
    assert all(letter.redriven_as for letter in letters)
    assert ["queued", "queued"] == [await client.get(letter.redriven_as).state() for letter in letters]


async def die(queue: Queue, jobs: int) -> None:
    """As jobs do that nobody can serve."""
    claim = await queue.claim("w1", "w1-1", ["cfo@1"], jobs, jobs, 15_000)
    assert jobs == len(claim.jobs)
    ends = [Settlement(job.job_id, job.lease, "dead", "Unservable", "of another release") for job in claim.jobs]
    await queue.settle(ends)


async def test_purge_dead(console, client):
    """Nothing to drop is said as well."""
    answer = await console.send_form("/console/dead/purge", {"hours": "1"}, follow_redirects=True)
    assert "0 dead letters dropped" in answer.text


async def test_aliases_move_and_roll_back(console, client, add_adapter):
    """To another version, and back where they were."""
    await add_adapter(version="1", aliases=["boss"])
    await add_adapter(version="2")
    question = await console.get("/console/aliases?name=Boss&to=cfo@2", follow_redirects=True)
    assert 'value="cfo@2"' in question.text
    await console.send_form("/console/aliases/boss/move", {"to": "cfo@2"})
    assert {"boss": "cfo@2"} == await client.adapters.aliases()
    assert "cfo@1" in (await console.get("/console/aliases/boss")).text
    await console.send_form("/console/aliases/boss/rollback")
    assert {"boss": "cfo@1"} == await client.adapters.aliases()
    assert 400 == (await console.send_form("/console/aliases/boss/rollback")).status_code
    assert ["rolled back alias", "rolled back alias", "moved alias"] == [what for _, what, *_ in await trail(client)]


async def test_schedules(console, client, add_adapter):
    """Added by a form, removed after a question."""
    await add_adapter()
    fields = {"adapter": "cfo", "prompt": "What is due?", "cron": "0 8 * * *", "name": "morning", "max_new_tokens": "8"}
    answer = await console.send_form("/console/schedules", fields, follow_redirects=True)
    assert "morning is added" in answer.text
    assert 400 == (await console.send_form("/console/schedules", {**fields, "name": "x", "cron": "daily"})).status_code
    await console.send_form("/console/schedules/morning/remove")
    assert [] == await client.schedules.list()


async def test_keys(console, client):
    """The secret stands on one page, once; a revoked key says so."""
    await client.keys.add("ops", role="operator")
    ops = await client.keys.add("ops2", role="operator")
    await console.send_form("/console/sign-in", {"key": ops})
    page = await console.send_form(
        "/console/keys", {"name": "board-7", "adapters": "cfo* ceo", "tokens_per_day": "1,000"}
    )
    [secret] = re.findall(r"lp-[A-Za-z0-9_-]{43}", page.text)
    found = await client.keys.find(secret)
    assert ("board-7", ("cfo*", "ceo"), 1000) == (found.name, found.adapters, found.tokens_per_day)
    assert secret not in (await console.get("/console/agents")).text
    await console.send_form("/console/keys/board-7/revoke")
    assert await client.keys.find(secret) is None
    assert "revoked" in (await console.get("/console/agents")).text
    assert {"ops2"} == {who for who, what, on, _ in await trail(client) if on == "board-7"}


async def test_the_bill_names_who_asked(console, client, add_adapter, worker):
    """Agents and adapters with what they had."""
    await add_adapter()
    await (await client.submit("cfo", "Hello", agent="board-7")).result(20)
    page = await until(lambda: console.get("/console/agents"))
    assert ("board-7" in page.text, "cfo@1" in page.text) == (True, True)


async def test_a_canary_takes_a_part(console, client, add_adapter, worker):
    """Jobs by the alias go both ways, the same id always the same; moving on ends it."""
    await add_adapter(version="1", aliases=["boss"])
    await add_adapter(version="2")
    await client.adapters.alias("boss", "cfo@1")
    await console.send_form("/console/aliases/boss/canary", {"to": "cfo@2", "percent": "50"})
    assert "50 % of its jobs go to" in (await console.get("/console/aliases/boss")).text
    requests = [{"adapter": "boss", "prompt": "Hello", "job_id": f"job-{number}"} for number in range(40)]
    first = [result.adapter for result in await client.gather(requests, timeout=60)]
    assert {"cfo@1", "cfo@2"} == set(first)
    assert first == [result.adapter for result in await client.gather(requests, timeout=60)]
    await console.send_form("/console/aliases/boss/move", {"to": "cfo@2"})
    assert {} == await client.adapters.canaries()
