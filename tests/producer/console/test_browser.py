"""The console in a real Chromium: flows by mouse and keyboard, live parts, and no fault that axe finds, light and dark.

Needs Chromium and playwright. Where they are missing these tests are left out; LORAPOOL_TEST_CHROMIUM names the program
where it must be there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lorapool.producer.console.recorder import record_minute
from lorapool.shared.queue.protocol import Settlement
from tests.parts import Queue
from tests.producer.canned_worker import serving
from tests.producer.console.conftest import Browser

PROGRAM = os.environ.get("LORAPOOL_TEST_CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.long
if PROGRAM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
if "LORAPOOL_TEST_CHROMIUM" not in os.environ:
    pytest.importorskip("playwright", reason="pip install playwright axe-playwright-python")

from axe_playwright_python.base import AXE_SCRIPT  # noqa: E402 - after what may leave all out
from playwright.async_api import Page, async_playwright, expect  # noqa: E402

PAGES = (
    "/", "/adapters", "/adapters/cfo@1", "/aliases/boss", "/workers", "/jobs", "/jobs/JOB", "/jobs/WAITING", "/dead",
    "/schedules", "/batches", "/agents", "/playground", "/audit", "/adapters/cfo/pause", "/dead/purge",
    "/jobs/0.nobody",
)  # fmt: skip
WAITS = "waits"


@pytest.fixture
async def world(client, redis, redis_url, pool_name, add_adapter) -> AsyncIterator[dict[str, str]]:
    """A pool with something on each page: ids of an ended, a waiting and a dead job."""
    await add_adapter(version="1", aliases=["boss"])
    await add_adapter(version="2", aliases=["boss"])
    await add_adapter(WAITS)
    await client.upkeep.pause(WAITS)
    dead = await _dead_letter(client, Queue(redis, pool_name), await add_adapter("dies"))
    async with serving(redis_url, pool_name):
        done = await client.submit("cfo", "How long is our runway?", agent="board-7")
        await done.result(60)
        waiting = await client.submit(WAITS, "Hello")
        await client.schedules.add("cfo", "What is due?", cron="0 8 * * *", name="morning")
        await record_minute(client)
        yield {"JOB": done.id, "WAITING": waiting.id, "DEAD": dead}


async def _dead_letter(client, queue, ref: str) -> str:
    job = await client.submit(ref, "Hello")
    [claimed] = (await queue.claim("w9", "w9-1", [ref], 1, 1, 15_000)).jobs
    await queue.settle([Settlement(claimed.job_id, claimed.lease, "dead", "Unservable", "of another release")])
    return job.id


@asynccontextmanager
async def chromium(served: Browser, **options: object) -> AsyncIterator[Page]:
    """A page of its own, which nothing may complain about: neither scripts nor the policy."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        context = await browser.new_context(base_url=str(served.base_url), **options)
        page, complaints = await context.new_page(), []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        try:
            yield page
        finally:
            await browser.close()
        assert [] == complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
async def test_axe_finds_no_serious_fault(served, world, scheme, width):
    """On each page, wide and narrow, light and dark; and none is wider than its window."""
    faults = {}
    async with chromium(served, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        for path in PAGES:
            await page.goto("/console" + path.replace("JOB", world["JOB"]).replace("WAITING", world["WAITING"]))
            faults[path] = await _axe(page)
            assert 0 == await page.evaluate("document.documentElement.scrollWidth - innerWidth") or width > 390, path
    assert {} == {path: found for path, found in faults.items() if found}


async def _axe(page: Page) -> list[str]:
    await page.evaluate(AXE_SCRIPT)
    found = await page.evaluate("axe.run()")
    return [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]}"
        for fault in found["violations"]
        if fault["impact"] in {"serious", "critical"}
    ]


async def test_pause_and_resume_by_keyboard(served, client, world):
    """The question is a dialog that Escape closes and Enter answers; the page says what became of it."""
    async with chromium(served) as page:
        await page.goto("/console/adapters/cfo@1")
        await page.get_by_role("link", name="Pause").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        assert "open" == await _state(client, "cfo@1")
        await page.get_by_role("link", name="Pause").press("Enter")
        await page.get_by_role("dialog").get_by_role("button", name="Pause").press("Enter")
        await expect(page.get_by_text("cfo@1 is paused")).to_be_visible()
        assert "paused" == await _state(client, "cfo@1")
        await page.get_by_role("button", name="Resume").press("Enter")
        await expect(page.get_by_text("cfo@1 is open again")).to_be_visible()
        assert "open" == await _state(client, "cfo@1")


async def _state(client, ref: str) -> str:
    return (await client.onlooker.depths([ref]))[ref].state


async def test_cancel(served, client, world):
    """A job that waits says why, is cancelled after a question, and its page tells of it by itself."""
    async with chromium(served) as page:
        await page.goto(f"/console/jobs/{world['WAITING']}")
        await expect(page.get_by_text("is paused; resume it")).to_be_visible()
        await page.get_by_role("link", name="Cancel").click()
        await page.get_by_role("button", name="Cancel the job").click()
        await expect(page.locator(".state", has_text="cancelled")).to_be_visible()
    assert "cancelled" == await client.get(world["WAITING"]).state()


async def test_redrive(served, client, world):
    """Marked on the list, confirmed in the dialog, run as a new job."""
    async with chromium(served) as page:
        await page.goto("/console/dead")
        await page.get_by_label("All on this page").check()
        await page.get_by_role("button", name="Submit again").first.click()
        await expect(page.get_by_role("dialog")).to_contain_text("1 chosen")
        await page.get_by_role("dialog").get_by_role("button", name="Submit again").click()
        await expect(page.get_by_text("1 submitted again")).to_be_visible()
    [letter] = await client.upkeep.dead()
    assert world["DEAD"] == letter.job_id
    assert letter.redriven_as


async def test_rollback(served, client, world):
    """An alias goes back to where it pointed."""
    assert "cfo@2" == (await client.adapters.aliases())["boss"]
    async with chromium(served) as page:
        await page.goto("/console/adapters/cfo@2")
        await page.get_by_role("link", name="boss").first.click()
        await page.get_by_role("link", name="Roll back").click()
        await page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        await expect(page.get_by_text("boss points back at cfo@1")).to_be_visible()
    assert "cfo@1" == (await client.adapters.aliases())["boss"]


async def test_playground(served, client, world):
    """One prompt, two adapters: both answers stand there, whole, as text."""
    async with chromium(served) as page:
        await page.goto("/console/playground")
        await page.get_by_label("Prompt").fill("Is <b>this</b> bold?")
        await page.get_by_label("Adapter 1").fill("cfo")
        await page.get_by_label("Adapter 2").fill("boss")
        await page.get_by_role("button", name="Ask").click()
        answers = page.locator(".answer")
        await expect(answers.nth(0)).to_have_text("cfo@2 heard: Is <b>this</b> bold?")
        await expect(answers.nth(1)).to_have_text("cfo@2 heard: Is <b>this</b> bold?")
        await expect(page.get_by_text("tokens in")).to_have_count(2)


async def test_a_search_goes_on_living(served, client, world, add_adapter):
    """The list is found as one types, keeps the place of the typing, and tells of what happens to it."""
    async with chromium(served) as page:
        await page.goto("/console/adapters")
        await page.get_by_label("Find by").press_sequentially(WAITS)
        await expect(page.locator("#part-adapters tbody tr")).to_have_count(1)
        assert "q" == await page.evaluate("document.activeElement.id")
        await expect(page.locator("tbody td.n").first).to_have_text("1")
        await client.submit(WAITS, "Hello again")
        await expect(page.locator("tbody td.n").first).to_have_text("2", timeout=20_000)


async def test_a_page_keeps_the_place_of_its_reader(served, client, world):
    """What is told anew under a focused link leaves the focus on it."""
    async with chromium(served) as page:
        await page.goto("/console/")
        link = page.locator("#part-now").get_by_role("link").first
        await link.focus()
        await client.submit(WAITS, "One more")
        await expect(page.locator("#part-now dd").first).to_have_text("2", timeout=20_000)
        await expect(link).to_be_focused()


async def test_charts_are_drawn(served, client, world):
    """From what was written down, with words for those who do not see them."""
    minute_ms = (await client.history.minutes())[0].minute_ms
    key = client.history._keys.history
    redis = client._parts.connection.server
    await redis.command("DEL", key)
    for number in range(5):
        fields = ("at_ms", minute_ms + number * 60_000, "succeeded", number * 60, "waiting", number)
        await redis.command("XADD", key, f"{minute_ms + number * 60_000}-0", *fields)
    async with chromium(served) as page:
        await page.goto("/console/")
        await expect(page.locator(".plot canvas")).to_have_count(6)
        await expect(page.get_by_role("img", name="Jobs ended over the last hour: 1 now")).to_be_visible()


async def test_without_scripts_all_works(served, client, world):
    """A browser that runs none pauses by a page instead of a dialog."""
    async with chromium(served, java_script_enabled=False) as page:
        await page.goto("/console/adapters/cfo@1")
        await page.get_by_role("link", name="Pause").click()
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_text("cfo@1 is paused")).to_be_visible()


async def test_signing_in(served, client, world):
    """By the key, and out again; the page that was asked for comes after."""
    key = await client.keys.add("ops", role="operator")
    async with chromium(served) as page:
        await page.goto("/console/workers")
        await page.get_by_label("Operator's key").fill("lp-wrong")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        await page.get_by_label("Operator's key").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading", name="Workers")).to_be_visible()
        assert [] == await _axe(page)
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_the_keyboard_skips_to_the_content(served, world):
    """The first stop is the link over the menu."""
    async with chromium(served) as page:
        await page.goto("/console/adapters")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        await page.keyboard.press("Enter")
        assert "main" == await page.evaluate("document.activeElement.id")
