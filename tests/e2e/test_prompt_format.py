"""An adapter's own chat template, on the real model."""

from __future__ import annotations

import shutil

import pytest

from lorapool.producer import AdapterRefused, Client, Result
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
