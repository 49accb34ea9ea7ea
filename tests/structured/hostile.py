"""Forms of answers that are sent to hurt: name → fields of a ResponseFormat. Each is refused or bounded."""

from __future__ import annotations

import json
from typing import Any

Form = dict[str, str]


def _schema(schema: Any) -> Form:
    return {"kind": "json_schema", "value": json.dumps(schema)}


def _regex(expression: str) -> Form:
    return {"kind": "regex", "value": expression}


def _lark(grammar: str) -> Form:
    return {"kind": "lark", "value": grammar}


def _choice(count: int) -> Form:
    return {"kind": "choice", "value": json.dumps([f"v{at * 7919 % 10007}" for at in range(count)])}


def _deep(levels: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _doubling(levels: int) -> Any:
    schema: Any = {"type": "integer"}
    for at in range(levels):
        schema = {"anyOf": [{"properties": {f"k{at}": schema}}, {"properties": {f"m{at}": schema}}]}
    return schema


def _chain(rules: int) -> str:
    return "start: r0\n" + "".join(f'r{at}: "k{at}" r{at + 1}\n' for at in range(rules)) + f'r{rules}: "z"\n'


def _fans(levels: int) -> Any:
    level = {
        f"d{at}": {"properties": {name: {"$ref": f"#/$defs/d{at + 1}"} for name in "abcdefghij"}}
        for at in range(levels)
    }  # fmt: skip
    return {"$ref": "#/$defs/d0", "$defs": {**level, f"d{levels}": {"type": "integer"}}}


def _all_of(levels: int) -> Any:
    step = {f"d{at}": {"allOf": 6 * [{"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}, {"type": "string"}]}]} for at in
            range(levels)}  # fmt: skip
    return {"$ref": "#/$defs/d0", "$defs": {**step, f"d{levels}": {"type": "integer"}}}


_CYCLE = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
_LEFT = "start: a0\n" + "".join(f"a{at}: a{at + 1} | a{at + 1} a{at + 1}\n" for at in range(20)) + 'a20: "x" |\n'

HOSTILE: dict[str, Form] = {
    "an object in an object, 20 deep": _schema(_deep(20)),
    "two ways at each of nine levels": _schema(_doubling(9)),
    "an enum of ten thousand": _schema({"enum": [f"v{at * 7919 % 10007}" for at in range(10_000)]}),
    "a choice of ten thousand": _choice(9999),
    "two thousand properties": _schema({"properties": {f"property_{at}": {"type": "string"} for at in range(2000)}}),
    "at least a hundred thousand items": _schema({"type": "array", "items": {"const": "abc" * 30}, "minItems": 10**5}),
    "at least a billion items": _schema({"type": "array", "minItems": 10**9, "maxItems": 10**9 + 1}),
    "a billion characters": _schema({"type": "string", "minLength": 10**6, "maxLength": 10**9}),
    "references in a circle": _schema(_CYCLE),
    "a reference to the root": _schema({"$ref": "#"}),
    "a reference to elsewhere": _schema({"$ref": "http://127.0.0.1:1/schema.json"}),
    "ten references in each of twelve": _schema(_fans(12)),
    "allOf of anyOf of allOf": _schema(_all_of(8)),
    "thirty patterns for names": _schema({"patternProperties": {f"^.*{at}.*$": {} for at in range(30)}}),
    "a multiple of a large prime": _schema({"type": "integer", "multipleOf": 99991, "minimum": 1, "maximum": 10**18}),
    "numbers of any size": _schema({"type": "number", "multipleOf": 1e-4, "minimum": 1e-300, "maximum": 1e300}),
    "plus in plus": _regex("(a+)+b"),
    "any, then twelve, twelve times": _regex("(.*[ab].{12}){12}"),
    "a thousand times a thousand": _regex("((a|b){1000}){1000}"),
    "a billion letters that are certain": _regex("(" * 9 + "a" + "{10})" * 9),
    "fifty of fifty of three": _regex("((x|y|z){0,50}(y|z|x){0,50}){0,50}"),
    "letters of all scripts": _regex(r"(\p{L}|\p{N}|\p{P}){1,500}"),
    "all words of five thousand": _regex(r"\w{5000}"),
    "neither this nor that": _regex("|".join(f"[^{chr(0x4E00 + at)}]{{3}}{chr(0x4E00 + at)}" for at in range(300))),
    "a look ahead": _regex("(?=a)b"),
    "sixteen thousand brackets": _regex("(" * 8000 + ")" * 8000),
    "ambiguous at each letter": _lark('start: e\ne: e e | "a" | e "b" e | ""\n'),
    "doubled twenty times": _lark(_LEFT),
    "a chain of rules": _lark(_chain(3000)),
    "a rule of itself": _lark("start: start"),
    "all orders of twenty letters": _lark(
        'start: perm::0\nperm::_: "" %if is_ones([0:20])\n'
        + "".join(f' | "{chr(97 + at)}" perm::set_bit({at}) %if bit_clear({at})\n' for at in range(20))
    ),
    "all parts of a long text": _lark('start: %regex {"substring_chars": "' + "ab" * 20_000 + '"}\n'),
    "a token that ends answers": _lark("start: <|im_end|>"),
    "nothing": _lark("start:"),
    "a lone surrogate": _schema({"const": "\ud800"}),
    "a zero byte": _schema({"const": "\x00", "title": "\u202e"}),
}  # fmt: skip
