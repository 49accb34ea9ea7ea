"""Chats whose template never ends: they fail, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import time

from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.errors import JobFailed
from lorapool.shared.prompt_format import PromptFormat
from tests.containment.conftest import Contain
from tests.machine import Meanwhile
from tests.parts import catalog_of

LOOPS = "{% if 'loop' in messages[0].content %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}{{ messages[0].content }}"  # noqa: E501
SAID = [{"role": "user", "content": "Please loop."}]


async def test_ten_looping_chats(contained: Contain) -> None:
    """One of them is stopped on each worker, the others fail with that; the adapter's plain prompts go on meanwhile."""
    async with contained(workers=2) as pool:
        catalog = catalog_of(pool.redis, "default")
        form = PromptFormat(template=LOOPS)
        await catalog.register(
            AdapterRecord(id="loop", version="1", digest="d" * 64, uri="file:///loop", prompt_format=form)
        )
        await catalog.decide("loop@1", "ready")
        await pool.calm()
        async with pool.bystanders() as bystanders:
            chats = await pool.client.submit_many(
                [{"adapter": "loop", "messages": SAID, "max_new_tokens": 3} for _ in range(10)]
            )
            began, meanwhile = time.monotonic(), Meanwhile()
            plain = await (await pool.client.submit("loop", "plain", max_new_tokens=3)).result(30)
            assert 3 == plain.usage.completion_tokens
            assert time.monotonic() - began < 4 * meanwhile.slowdown(), "a plain prompt waited for a loop"
            ends = await asyncio.gather(*(chat.result(120) for chat in chats), return_exceptions=True)
            assert ["TemplateEnded"] * 10 == [end.error for end in ends if isinstance(end, JobFailed)]
            assert 8 <= sum("not tried again" in str(end) for end in ends)
        bystanders.judge(factor=3.0, slack_s=1.0)
