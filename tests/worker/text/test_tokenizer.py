"""Tokenizer: prompts, chat messages, and text that comes a whole character at a time."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lorapool.shared.errors import BaseModelError, InvalidRequest
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.text.tokenizer import Tokenizer

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def _tokenizer() -> Tokenizer:
    """One token a byte, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    return Tokenizer.of(PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="</s>", chat_template=TEMPLATE))


TOKENIZER = _tokenizer()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_pieces_join_to_the_text_and_hold_no_half_characters(text: str) -> None:
    """Byte by byte, each piece is whole characters, and all together are the text."""
    ids = TOKENIZER.encode(Job(id="a", ref="_base", prompt=text)) if text else []
    stream = TOKENIZER.detokenizer()
    pieces = [stream.push(token) for token in ids]
    assert text == "".join(pieces)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_an_unfinished_character_is_not_shown() -> None:
    """Three of an emoji's four bytes give nothing."""
    ids = TOKENIZER.encode(Job(id="a", ref="_base", prompt="ab😀"))
    stream = TOKENIZER.detokenizer()
    assert "".join(stream.push(token) for token in ids[:-1]) == "ab"


def test_it_travels_as_plain_data() -> None:
    """Packed, sent as msgpack and unpacked in a process without torch, it gives the same ids."""
    travelled = Tokenizer.unpacked(msgpack.unpackb(msgpack.packb(TOKENIZER.packed())))
    chat = Job(id="a", ref="_base", messages=({"role": "user", "content": "hi"},))  # type: ignore[arg-type]
    for job in (Job(id="a", ref="_base", prompt="ab😀"), chat):
        assert TOKENIZER.encode(job) == travelled.encode(job)
    assert TOKENIZER.eos_ids == travelled.eos_ids


def test_special_tokens_are_not_text() -> None:
    """The end token shows as nothing."""
    stream = TOKENIZER.detokenizer()
    assert [stream.push(token) for token in TOKENIZER.eos_ids] == [""]


def test_messages_go_through_the_template() -> None:
    """With the generation prompt behind them."""
    job = Job(id="a", ref="_base", messages=({"role": "user", "content": "hi"},))  # type: ignore[arg-type]
    assert TOKENIZER.decode(TOKENIZER.encode(job)) == "[user]hi[assistant]"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (PromptFormat(template="<{{ messages[0].content }}>"), "<hi>"),
        (PromptFormat(), "[user]hi[assistant]"),
        (PromptFormat(kind="custom", suffix="\n###\n"), "hi\n###\n"),
        (PromptFormat(kind="raw"), "hi"),
    ],
)
def test_messages_go_through_the_adapters_own_format(form: PromptFormat, expected: str) -> None:
    """And a plain prompt is raw text whatever that is."""
    job = Job(id="a", ref="cfo@1", messages=({"role": "user", "content": "hi"},))  # type: ignore[arg-type]
    assert expected == TOKENIZER.decode(TOKENIZER.encode(job, form))
    assert TOKENIZER.encode(Job(id="a", ref="cfo@1", prompt="hi"), form) == TOKENIZER.encode(
        Job(id="a", ref="_base", prompt="hi")
    )


def test_a_template_that_refuses_is_the_callers_error() -> None:
    """Its words reach the caller."""
    job = Job(id="a", ref="_base", messages=({"role": "system", "content": "x"},))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="no system"):
        TOKENIZER.encode(job)


def test_an_empty_prompt_is_refused() -> None:
    """There is nothing to continue."""
    with pytest.raises(InvalidRequest, match="empty"):
        TOKENIZER.encode(Job(id="a", ref="_base", prompt=""))


def test_a_folder_without_tokenizer_is_refused(tmp_path: object) -> None:
    """With the folder in the message."""
    with pytest.raises(BaseModelError, match=str(tmp_path)):
        Tokenizer.from_folder(str(tmp_path))
