"""One uploaded adapter, made to harm: it is judged where it can do none, and every worker lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorapool.producer.client.adapters import Adapters
from lorapool.shared.errors import AdapterRefused
from tests.containment.conftest import Contain
from tests.containment.files import AdapterFolder

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
TEMPLATE_S = 1.0  # of the judge's own time, whatever else the machine does


async def refusal(adapters: Adapters, name: str, path: Path) -> str:
    with pytest.raises(AdapterRefused) as caught:
        await adapters.register(name, path, timeout=90)
    return caught.value.reason


async def test_an_expression_that_backtracks_for_ever(contained: Contain, tmp_path: Path) -> None:
    """It once froze every worker of a pool, and each that was restarted; it is served, for RE2 runs it."""
    folder = AdapterFolder.at(tmp_path)
    path = folder.add("redos", rank_pattern={".?" * 40 + "Q": 4}, alpha_pattern={"(a+)+Q": 4})
    async with contained(workers=0, **folder.mounted) as pool:
        for name in ("w1", "w2"):
            pool.start(name, folder.model)
        await pool.ready("w1", "w2")
        await pool.calm()
        async with pool.bystanders() as bystanders:
            assert "ready" == (await pool.client.adapters.register("redos", path, timeout=90)).status
            result = await (await pool.client.submit("redos", "Hello", max_new_tokens=3)).result(30)
            assert 3 == result.usage.completion_tokens
            await bystanders.served(8)
        bystanders.judge(factor=3.0, slack_s=1.0)


async def test_texts_that_cannot_be_sent(contained: Contain, tmp_path: Path) -> None:
    """Lone surrogates where a refusal quotes them: once each ended every worker that looked."""
    folder = AdapterFolder.at(tmp_path)
    vile = {
        "pattern": folder.add("pattern", rank_pattern={"\ud800": "x"}),
        "base": folder.add("base", base_model_name_or_path="\ud800" * 9, rank_pattern={"q": "\ud800"}),
        "template": folder.add("template", template="{{ raise_exception('\\ud800\\x00') }}"),
    }
    async with contained(workers=0, **folder.mounted) as pool:
        for name in ("w1", "w2"):
            pool.start(name, folder.model)
        await pool.ready("w1", "w2")
        await pool.calm()
        async with pool.bystanders() as bystanders:
            for name, path in vile.items():
                reason = await refusal(pool.client.adapters, name, path)
                assert "rank_pattern" in reason or "prompt format" in reason
                assert not any("\ud800" <= character <= "\udfff" or character == "\0" for character in reason)
            await bystanders.served(8)
        bystanders.judge(factor=3.0, slack_s=1.0)


async def test_a_template_that_ends_its_judge(contained: Contain, tmp_path: Path) -> None:
    """It never ends: two judges are stopped over it, and it is refused for that; a sound one is judged after it."""
    folder = AdapterFolder.at(tmp_path)
    endless, sound = folder.add("endless", template=ENDLESS), folder.add("sound")
    async with contained(workers=0, **folder.mounted) as pool:
        for name in ("w1", "w2"):
            pool.start(name, folder.model | {"template_s": TEMPLATE_S})
        await pool.ready("w1", "w2")
        await pool.calm()
        async with pool.bystanders() as bystanders:
            reason = await refusal(pool.client.adapters, "endless", endless)
            assert "ended its judge 2 times" in reason and "at its chat template" in reason
            assert "ready" == (await pool.client.adapters.register("sound", sound, timeout=90)).status
        bystanders.judge(factor=3.0, slack_s=1.0)
