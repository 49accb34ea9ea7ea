"""lorax-client 0.6.3, blocking and asyncio: generate, with an adapter and without, streamed, and what is refused."""

from __future__ import annotations

import asyncio
import sys

from lorax import AsyncClient, Client
from lorax.errors import GenerationError, NotFoundError, ValidationError

client = Client(sys.argv[1])
PROMPT = "Why is the sky blue?"


def generate() -> None:
    answer = client.generate(PROMPT, adapter_id="cfo", max_new_tokens=12)
    assert answer.generated_text
    assert answer.details.generated_tokens <= 12
    assert client.generate("The sky is blue because", max_new_tokens=12).generated_text  # the base model


def generate_stream() -> None:
    text = ""
    for response in client.generate_stream(PROMPT, adapter_id="cfo", max_new_tokens=12):
        if not response.token.special:
            text += response.token.text
    assert text == client.generate(PROMPT, adapter_id="cfo", max_new_tokens=12).generated_text


def structured() -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    form = {"type": "json_object", "schema": schema}
    answer = client.generate(PROMPT, adapter_id="ceo", max_new_tokens=64, response_format=form)
    assert '"yes"' in answer.generated_text


def refused() -> None:
    try:
        client.generate(PROMPT, adapter_id="no-such-adapter", max_new_tokens=4)
    except (GenerationError, NotFoundError, ValidationError) as error:
        assert "no-such-adapter" in str(error)
    else:
        raise AssertionError("an unknown adapter was answered for")


def asyncio_client() -> None:
    async def ask() -> str:
        return str(
            (await AsyncClient(sys.argv[1]).generate(PROMPT, adapter_id="cfo", max_new_tokens=12)).generated_text
        )

    assert asyncio.run(ask()) == client.generate(PROMPT, adapter_id="cfo", max_new_tokens=12).generated_text


for step in (generate, generate_stream, structured, refused, asyncio_client):
    if not sys.argv[2:] or step.__name__ in sys.argv[2:]:
        step()
        print(step.__name__, flush=True)
