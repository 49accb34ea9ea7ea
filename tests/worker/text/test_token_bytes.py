"""Token bytes: those of an answer's tokens, one after another, are its text, for tokenizers of every make."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from examples.base_model import prepare
from lorapool.worker.text.token_bytes import TokenBytes
from lorapool.worker.text.told_tokens import ToldTokens

END = "</s>"


def smollm2() -> FastTokenizer:
    """Byte-level BPE, as it was trained."""
    return FastTokenizer.from_file(str(prepare() / "tokenizer.json"))


def sentencepiece(decoder: decoders.Decoder | None = None) -> FastTokenizer:
    """As converted from Llama 2's: pieces, and a token for each byte that no piece has."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "é", "▁a", "▁a▁b", "ab"]
    merges = [("▁", "a"), ("▁a", "▁b"), ("a", "b")]
    pieces.insert(-2, "▁b")
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges.insert(1, ("▁", "b"))
    fast = FastTokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast.decoder = decoder or decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast.add_special_tokens([END])
    fast.add_tokens([AddedToken("<tool▁call>", normalized=False)])
    return fast


def gemma() -> FastTokenizer:
    """No blank is left out where the text begins."""
    return sentencepiece(decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))


def metaspace() -> FastTokenizer:
    """Pieces without bytes."""
    return sentencepiece(decoders.Metaspace())


FAST = {make.__name__: make() for make in (smollm2, sentencepiece, gemma)}
MAKES = pytest.mark.parametrize("make", [*FAST])


def spelled(fast: FastTokenizer, ids: list[int]) -> bytes:
    """What is told of these tokens, special ones aside."""
    told, spelling = ToldTokens(TokenBytes(fast)), TokenBytes(fast)
    told.push(ids, [-0.5] * len(ids), [])
    assert ids == [token.id for token in told.all]
    return b"".join(token.text for token in told.all if not spelling.is_special(token.id))


TEXTS = st.text(max_size=30) | st.text("ab é▁\n😀", max_size=30)


@MAKES
@settings(max_examples=80, deadline=None)
@given(text=TEXTS)
def test_joined_they_are_the_text(make: str, text: str) -> None:
    """Of any text, to the byte, from its first character on."""
    fast = FAST[make]
    ids = fast.encode(text, add_special_tokens=False).ids
    if fast.decode(ids) == text or make != "smollm2":  # it has no token for some bytes, and leaves them out
        assert fast.decode(ids).encode() == spelled(fast, ids)


@MAKES
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_joined_they_are_what_any_tokens_say(make: str, data: st.DataObject) -> None:
    """Tokens as a model may draw them, special ones and halves of characters among them."""
    fast = FAST[make]
    ids = data.draw(st.lists(st.integers(0, fast.get_vocab_size() - 1), max_size=12))
    raw = spelled(fast, ids)
    try:
        text = raw.decode()
    except UnicodeDecodeError:  # what stands there instead of half a character is the decoder's choice
        return
    assert fast.decode(ids) == text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(257, 264), max_size=8))
def test_metaspaces_are_blanks(ids: list[int]) -> None:
    """But for the one that begins the text."""
    fast = metaspace()
    assert fast.decode(ids).encode() == spelled(fast, ids)


@pytest.mark.parametrize(
    ("make", "token", "first", "expected"),
    [
        (smollm2, "Ġthe", False, b" the"),
        (smollm2, "Ċ", True, b"\n"),
        (smollm2, "<|im_end|>", False, b"<|im_end|>"),
        (sentencepiece, "<0xC3>", False, b"\xc3"),
        (sentencepiece, "▁a▁b", False, b" a b"),
        (sentencepiece, "▁a▁b", True, b"a b"),
        (sentencepiece, END, True, END.encode()),
        (gemma, "▁a", True, b" a"),
    ],
)
def test_a_token(make: Callable[[], FastTokenizer], token: str, first: bool, expected: bytes) -> None:
    """By how it is written in the vocabulary; half a character is its bytes, a special token its name."""
    fast = make()
    assert expected == TokenBytes(fast).of(fast.token_to_id(token), first=first)


def test_every_byte_has_a_letter() -> None:
    """The alphabet is that of the tokenizer's own library."""
    fast = FastTokenizer(models.BPE({letter: at for at, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    fast.decoder = decoders.ByteLevel()
    spelling = TokenBytes(fast)
    assert {bytes([byte]) for byte in range(256)} == {spelling.of(token) for token in range(256)}
    assert b"" == spelling.of(256)


def test_a_decoder_that_is_not_known_gives_the_tokens_text() -> None:
    """WordPiece, or a replacement by an expression: as the tokenizer says of the token alone."""
    fast = FastTokenizer(models.WordPiece({"[UNK]": 0, "run": 1, "##way": 2}, unk_token="[UNK]"))
    fast.decoder = decoders.WordPiece()
    assert [b"run", b"##way"] == [TokenBytes(fast).of(token) for token in (1, 2)]
    fast.decoder = decoders.Sequence([decoders.Replace(Regex("r.n"), "walk"), decoders.Fuse()])
    assert b"walk" == TokenBytes(fast).of(1)
    fast.decoder = None
    assert b"run" == TokenBytes(fast).of(1)


def test_alternatives_are_spelled_as_at_their_place() -> None:
    """Each place's, in order; the first text of an answer may come after a special token."""
    fast = sentencepiece()
    vocabulary = fast.get_vocab()
    a, end = vocabulary["▁a"], vocabulary[END]
    told = ToldTokens(TokenBytes(fast))
    first = told.push([end], [-1.0], [((end, -1.0), (a, -2.0))])
    told.push([a, a], [-1.0, -0.5], [((a, -1.0),), ((a, -0.5),)])
    assert [[END.encode(), b"a"], [b"a"], [b" a"]] == [[one.text for one in token.top] for token in told.all]
    assert [END.encode(), b"a", b" a"] == [token.text for token in told.all]
    assert first == tuple(told.all[:1])
