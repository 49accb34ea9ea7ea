"""A tokenizer of one token a byte, with an end token and what special ones a test wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from transformers import PreTrainedTokenizerFast

from lorapool.worker.text.tokenizer import Tokenizer


def byte_fast(special: tuple[str, ...] = ()) -> FastTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return fast


def byte_tokenizer(template: str | Mapping[str, str], special: tuple[str, ...] = (), response: Any = None) -> Tokenizer:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_fast(special), eos_token="</s>", chat_template=template)
    tokenizer.response_template = response
    return Tokenizer.of(tokenizer)
