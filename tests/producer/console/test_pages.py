"""Pages: each there, empty and full; all that others wrote escaped; nothing from elsewhere."""

from __future__ import annotations

import re

import pytest

from lorapool.producer.console.headers import POLICY
from lorapool.producer.console.pages import ASSETS
from lorapool.producer.console.pages import HERE as FOLDER

PAGES = ("/", "/adapters", "/workers", "/jobs", "/dead", "/schedules", "/batches", "/agents", "/playground", "/audit")
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.mark.parametrize("path", PAGES)
async def test_an_empty_pool_has_every_page(console, path):
    """Without worker, adapter or job each page is there, and says what could be done."""
    page = await console.get(f"/console{path}")
    assert 200 == page.status_code
    assert "no-store" == page.headers["cache-control"]
    assert POLICY == page.headers["content-security-policy"]


def test_no_template_has_anything_inline():
    """What the policy forbids is nowhere: scripts, styles and handlers within a page, addresses of other hosts."""
    inline = re.compile(
        r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:|(?:src|href|action)=\"(?:https?:)?//"
    )
    found = {path.name: inline.findall(path.read_text()) for path in (FOLDER / "templates").rglob("*.html")}
    assert 20 < len(found)
    assert not {name for name, hits in found.items() if hits}


def test_nothing_is_taken_as_safe():
    """No template switches escaping off."""
    text = "".join(path.read_text() for path in (FOLDER / "templates").rglob("*.html"))
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)


async def test_assets_come_with_the_console(console):
    """Each file that a page names is served, for as long as a browser likes to keep it; what is outside is not."""
    page = (await console.get("/console/")).text
    named = re.findall(r'(?:src|href)="(/console/assets/[^"]+)"', page)
    assert {"htmx.min.js", "uPlot.iife.min.js", "console.js", "console.css"} <= {
        name.split("/")[-1].split("?")[0] for name in named
    }
    for name in named:
        asset = await console.get(name)
        assert (200, True) == (asset.status_code, "immutable" in asset.headers["cache-control"])
    assert 404 == (await console.get("/console/assets/%2e%2e/app.py")).status_code


def test_licences_of_others_are_told():
    """Each file that is not ours stands in LICENCES.md."""
    text = (ASSETS / "LICENCES.md").read_text()
    theirs = {path.name for path in ASSETS.iterdir()} - {"console.js", "console.css", "icon.svg", "LICENCES.md"}
    assert theirs
    assert not {name for name in theirs if f"`{name}`" not in text}


async def test_what_others_wrote_is_escaped(console, client, redis, add_adapter, pool_name, worker):
    """Texts of adapters, workers, dead letters and answers stand on the pages as text."""
    ref = await add_adapter(owner=EVIL, metadata={EVIL: EVIL})
    keys = client.onlooker._keys
    await redis.hset(f"lp:{{{pool_name}}}:worker:canned", mapping={"ails": EVIL, "device": EVIL})
    await redis.xadd(keys.one("dead"), {"job": "x", "ref": ref, "agent": "a", "reason": EVIL, "message": EVIL,
                                        "attempts": 1, "lost": 0, "died_ms": 1_800_000_000_000})  # fmt: skip
    job = await client.submit("cfo", EVIL, max_new_tokens=99)
    await job.result(20)
    paths = ("/", f"/adapters/{ref}", "/workers", "/dead", f"/jobs/{job.id}", f"/adapters?q={EVIL}", f"/jobs/{EVIL}")
    for path in (
        *paths,
        f"/playground?adapter={EVIL}",
        f"/dead?adapter={EVIL}",
        f"/audit?who={EVIL}",
        f"/jobs?agent={EVIL}",
    ):
        page = (await console.get(f"/console{path}")).text
        assert "<script>alert" not in page, path
        assert "<img" not in page, path
    assert "&lt;script&gt;alert(1)" in (await console.get(f"/console/jobs/{job.id}")).text


async def test_a_page_of_many_adapters_is_bounded(console, add_adapter):
    """Fifty at a time, found by what is typed, in their order."""
    for number in range(60):
        await add_adapter(f"a{number:02}", aliases=["boss"] if number == 7 else [])
    first = (await console.get("/console/adapters")).text
    assert ("a00@1" in first, "a48@1" in first, "a49@1" in first) == (True, True, False)  # the base model is the first
    assert "a49@1" in (await console.get("/console/adapters?from=50")).text
    found = (await console.get("/console/adapters?q=BOSS")).text
    assert ("a07@1" in found, "a08@1" in found) == (True, False)
    assert "No adapter has" in (await console.get("/console/adapters?q=zzz")).text


async def test_a_job_that_waits_says_why(console, client, add_adapter):
    """Its page has the reason, and the button that ends it; none once it has ended."""
    await add_adapter()
    job = await client.submit("cfo", "How long is our runway?")
    page = (await console.get(f"/console/jobs/{job.id}")).text
    assert ("no live worker" in page, f"/jobs/{job.id}/cancel" in page) == (True, True)
    await job.cancel()
    page = (await console.get(f"/console/jobs/{job.id}")).text
    assert ("cancelled" in page, f"/jobs/{job.id}/cancel" in page) == (True, False)


async def test_jobs_that_nothing_can_claim_are_told_of(console, client, add_adapter):
    """The list, which is of what can be claimed, says why it is empty."""
    await client.upkeep.pause(await add_adapter())
    await client.submit("cfo", "How long is our runway?")
    assert "wait for adapters that are paused or at their limit" in (await console.get("/console/jobs")).text


async def test_the_base_model_has_a_page(console):
    """It is listed first, and is like an adapter but for versions."""
    assert "/adapters/_base" in (await console.get("/console/adapters")).text
    page = await console.get("/console/adapters/_base")
    assert (200, True) == (page.status_code, "has no versions" in page.text)


@pytest.mark.parametrize(
    "path", ["/adapters/nobody", "/jobs/0.nothing", "/aliases/nobody", "/nowhere", "/jobs/find?id=a/b"]
)
async def test_what_is_not_there_is_said(console, path):
    """404, on a page of the console."""
    page = await console.get(f"/console{path}", follow_redirects=True)
    assert (404, True) == (page.status_code, "<h1" in page.text)


@pytest.mark.parametrize("query", ["/workers?from=x", "/adapters?from=-1", "/agents?price=abc", "/agents?price=-1"])
async def test_a_field_that_is_none_is_refused(console, query):
    """400, and which."""
    assert 400 == (await console.get(f"/console{query}")).status_code
