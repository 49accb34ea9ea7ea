"""An adapter's own files, on the real model: its chat template, and whether its weights are still the same."""

from __future__ import annotations

import shutil

import pytest

from lorapool.producer import AdapterRefused, Client, Result
from lorapool.producer.client.publishing import Verified
from tests.e2e.conftest import ADAPTERS, RealPool


async def test_messages_go_through_the_adapters_template(real_pool: RealPool) -> None:
    """The file beside the weights decides: messages give the tokens of that very text as a plain prompt, and not those
    of the base model's template. One that cannot work is refused before it serves."""
    folder = real_pool.adapter_root / "templated"
    shutil.copytree(ADAPTERS / "cfo", folder)
    (folder / "chat_template.jinja").write_text("Q: {{ messages[0]['content'] }}\nA:")
    async with Client(real_pool.url) as pool:
        await pool.adapters.register("templated", folder, version="own")
        said = {"messages": [{"role": "user", "content": "How long is our runway?"}], "max_new_tokens": 6}
        text = {"adapter": "templated@own", "prompt": "Q: How long is our runway?\nA:", "max_new_tokens": 6}
        own, plain, base = await pool.gather([{"adapter": "templated@own", **said}, text, {"adapter": "cfo", **said}])
        (folder / "chat_template.jinja").write_text("{% if %}")
        with pytest.raises(AdapterRefused, match="prompt format"):
            await pool.adapters.register("templated", folder, version="broken")
        await pool.adapters.remove("templated@own")
    assert isinstance(own, Result), own
    assert isinstance(plain, Result), plain
    assert isinstance(base, Result), base
    assert (plain.token_ids, plain.usage) == (own.token_ids, own.usage)
    assert own.digest == base.digest
    assert own.usage.prompt_tokens != base.usage.prompt_tokens


async def test_a_worker_tells_of_changed_files(real_pool: RealPool) -> None:
    """Asked to look again, it says what it would not load; before the change it had nothing to say."""
    folder = real_pool.adapter_root / "drifting"
    shutil.copytree(ADAPTERS / "cfo", folder)
    async with Client(real_pool.url) as pool:
        await pool.adapters.register("drifting", folder)
        assert ("w1", "") == _answer(await pool.adapters.verify("drifting", worker=True))
        config = folder / "adapter_config.json"
        config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
        by, problem = _answer(await pool.adapters.verify("drifting", worker=True))
        assert "ready" == (await pool.adapters.get("drifting")).status
        await pool.adapters.remove("drifting@1.0.0")
    assert "w1" == by
    assert "the files have changed" in problem


def _answer(found: Verified) -> tuple[str, str]:
    return found.by, found.problem
