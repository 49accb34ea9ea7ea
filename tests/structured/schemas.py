"""Two hundred JSON schemas, by the families of JSONSchemaBench, and of Pydantic's making: name → schema.

Small enough for a small model to come to an end; each says what its family is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import islice, product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, conint, constr

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "maxLength": 12}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 99}
FLAG: Schema = {"type": "boolean"}
WORDS = ("name", "city", "price", "ok", "note", "rank", "übung", "日付", "naïve", "ключ")


def closed(properties: Mapping[str, Schema], required: list[str] | None = None, **more: Any) -> Schema:
    needed = list(properties) if required is None else required
    return {
        "type": "object", "properties": dict(properties), "required": needed, "additionalProperties": False, **more
    }  # fmt: skip


def flat() -> Iterator[Schema]:
    """Objects of plain values, all or some of them required."""
    kinds = (TEXT, COUNT, FLAG, {"type": "null"}, {"type": ["integer", "null"]})
    for size, first, optional in product((1, 2, 3, 4, 5), range(4), (False, True)):
        properties = {WORDS[(first + at) % 6]: kinds[(first + at) % len(kinds)] for at in range(size)}
        yield closed(properties, list(properties)[:1] if optional else None)


def nested() -> Iterator[Schema]:
    """Objects in objects in objects."""
    for depth, width in product((2, 3, 4, 5, 6), (1, 2, 3, 4)):
        schema: Schema = COUNT
        for level in range(depth):
            beside = {f"{WORDS[at]}{level}": FLAG for at in range(width - 1)}
            schema = closed({f"in{level}": schema, **beside})
        yield schema


def enums() -> Iterator[Schema]:
    """One of so many, of one kind or of several, in any script; and exactly this."""
    for size in (1, 2, 5, 50, 500):
        yield {"enum": [f"value {at * 7919 % 1009}" for at in range(size)]}
        yield closed({"pick": {"type": "string", "enum": [f"v{at:03}" for at in range(size)]}})
    yield {"enum": ["née", "日本", "🎈", "Ελλάδα", 'a "quoted" one', "back\\slash", "line\nbreak"]}
    yield {"enum": [1, 2.5, None, True, "x", [1, 2], {"a": 1}]}
    yield from ({"const": value} for value in ("only", 7, None, [1, {"a": "ü"}], {"type": "object"}))
    yield closed({"kind": {"const": "a"}, "level": {"enum": [1, 2, 3]}, "tag": {"enum": ["x", "y"]}})


def arrays() -> Iterator[Schema]:
    """Lists of so many of something, and tuples."""
    for (low, high), item in product(((0, 2), (1, 1), (1, 3), (3, 3)), (COUNT, TEXT, FLAG, {"enum": ["a", "b"]})):
        yield {"type": "array", "items": item, "minItems": low, "maxItems": high}
    pair = {"type": "array", "prefixItems": [COUNT, TEXT], "items": False, "minItems": 2}
    yield from (pair, closed({"points": {"type": "array", "items": pair, "minItems": 1, "maxItems": 2}}))
    square = {"type": "array", "items": {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2}, "maxItems": 2}
    yield from (square, {"type": "array", "items": {"enum": ["a", "b", "c", "d"]}, "uniqueItems": True, "maxItems": 1})
    yield {"type": "array", "items": closed({"id": COUNT, "ok": FLAG}), "minItems": 1, "maxItems": 2}


def references() -> Iterator[Schema]:
    """By $ref and $defs, to siblings, to themselves, under both names of the place, to the root."""
    for place in ("$defs", "definitions"):
        ref = {"$ref": f"#/{place}/thing"}
        yield closed({"one": ref, "two": ref}, **{place: {"thing": closed({"id": COUNT})}})
        yield closed(
            {"many": {"type": "array", "items": ref, "minItems": 1, "maxItems": 2}}, **{place: {"thing": TEXT}}
        )
        yield closed({"deep": ref}, **{place: {"thing": closed({"on": {"$ref": f"#/{place}/last"}}), "last": FLAG}})
        node = closed({"v": COUNT, "next": {"anyOf": [{"type": "null"}, ref]}})
        yield {**ref, place: {"thing": node}}
        tree = closed({"v": COUNT, "kids": {"type": "array", "items": ref, "maxItems": 1}})
        yield {**ref, place: {"thing": tree}}
    yield closed({"v": COUNT, "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}})
    yield closed({"a": COUNT, "b": {"$ref": "#/properties/a"}})


def formats() -> Iterator[Schema]:
    """Strings that are a date, a time, an address."""
    names = ("date", "time", "date-time", "duration", "email", "uuid", "ipv4", "ipv6", "hostname", "uri")
    for name in names:
        yield closed({"value": {"type": "string", "format": name}})
    yield closed({"from": {"type": "string", "format": "date"}, "to": {"type": "string", "format": "date"}})
    yield closed({"id": {"type": "string", "format": "uuid"}, "at": {"type": "string", "format": "time"}})
    yield closed({"value": {"type": "string", "format": "house-style", "maxLength": 8}})


def numbers() -> Iterator[Schema]:
    """Integers and numbers within bounds, open and closed."""
    for low, high in ((0, 1), (-5, 5), (10, 99), (1000, 1_000_000), (-1, 0), (7, 7)):
        yield closed({"n": {"type": "integer", "minimum": low, "maximum": high}})
        yield closed({"x": {"type": "number", "minimum": low, "maximum": high}})
        yield closed({"x": {"type": "integer", "exclusiveMinimum": low - 1, "exclusiveMaximum": high + 1}})
    yield closed({"n": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}})
    yield closed({"n": {"type": "integer", "minimum": 3}, "x": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}})


def unions() -> Iterator[Schema]:
    """anyOf, oneOf that is told apart, allOf, what may be null."""
    cat, dog = ({"kind": {"const": kind}} for kind in ("cat", "dog"))
    for word in ("anyOf", "oneOf"):
        yield {word: [COUNT, FLAG]}
        yield closed({"v": {word: [TEXT, {"type": "null"}]}})
        yield closed({"pet": {word: [closed({**cat, "lives": COUNT}), closed({**dog, "good": FLAG})]}})
        yield {"type": "array", "items": {word: [COUNT, {"enum": ["x"]}]}, "minItems": 1, "maxItems": 3}
        yield closed({"a": {word: [closed({"x": COUNT}), closed({"y": {word: [FLAG, {"type": "null"}]}})]}})
    yield {"allOf": [closed({"a": COUNT, "b": FLAG}), {"required": ["a"]}]}
    yield closed({"v": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]}})
    yield closed({"v": {"type": ["string", "integer"], "maxLength": 5, "minimum": 0, "maximum": 9}})


def patterns() -> Iterator[Schema]:
    """Strings by an expression, names by one, whatever else is there by a schema."""
    for pattern in (
        "^[A-Z]{3}$", r"^\d{4}-\d{2}$", "^(red|green|blue)$", r"^\+[1-9][0-9]{6,10}$", "^[a-f0-9]{8}$", "^.{2,6}$",
        "^[äöüß]{2,4}$", "^#[0-9a-fA-F]{6}$", "^(ab|cd){1,3}$", "^ΑΒΓ-[0-9]+$",
    ):  # fmt: skip
        yield closed({"code": {"type": "string", "pattern": pattern}})
    yield {"type": "object", "patternProperties": {"^[a-c]$": COUNT}, "additionalProperties": False, "maxProperties": 2}
    yield {"type": "object", "properties": {"id": COUNT}, "required": ["id"], "patternProperties": {"^x_[a-z]$": FLAG},
           "additionalProperties": False}  # fmt: skip
    yield {"type": "object", "properties": {"id": COUNT}, "required": ["id"], "additionalProperties": FLAG,
           "maxProperties": 2}  # fmt: skip
    yield closed({"code": {"type": "string", "minLength": 3, "maxLength": 3}})


def unicode() -> Iterator[Schema]:
    """Names and values in many scripts, and names that look like keywords or need escapes."""
    for name in ("größe", "名前", "имя", "🎈", "type", "$ref", "a b", 'a"b', "a\\b", "a/b~c", "__proto__", "é"):
        yield closed({name: COUNT})
    yield closed(dict.fromkeys(WORDS[6:], FLAG))


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Point(Strict):
    x: conint(ge=0, le=9)  # type: ignore[valid-type]
    y: conint(ge=0, le=9)  # type: ignore[valid-type]


class Line(Strict):
    start: Point
    end: Point
    colour: Colour = Colour.RED


class Cat(Strict):
    kind: Literal["cat"]
    lives: conint(ge=1, le=9)  # type: ignore[valid-type]


class Dog(Strict):
    kind: Literal["dog"]
    good: bool


class Owner(Strict):
    name: constr(max_length=10)  # type: ignore[valid-type]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Order(Strict):
    items: Annotated[list[Point], Field(min_length=1, max_length=2)]
    note: Annotated[str, Field(max_length=10)] | None
    paid: bool = False


class Chain(Strict):
    value: conint(ge=0, le=9)  # type: ignore[valid-type]
    next: Chain | None


class Described(BaseModel):
    """What it is for is told to people."""

    title: Annotated[str, Field(description="Short.", max_length=10, examples=["Tea"])]
    score: Annotated[float, Field(ge=0, le=1)]
    colour: Colour


def models() -> Iterator[Schema]:
    """Pydantic's: enums, nested models, discriminated unions, recursion, notes for people."""
    for model in (Point, Line, Cat, Dog, Owner, Order, Chain, Described):
        yield model.model_json_schema()
        yield closed({"answer": {"$ref": "#/$defs/Answer"}}, **{"$defs": _with_definitions(model)})


def _with_definitions(model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema()
    inner = schema.pop("$defs", {})
    return {**inner, "Answer": schema}


FAMILIES = (
    flat, nested, enums, arrays, references, formats, numbers, unions, patterns, unicode, models
)  # fmt: skip
ALL = {f"{family.__name__}-{at}": schema for family in FAMILIES for at, schema in enumerate(family())}
SCHEMAS = dict(islice(ALL.items(), 200))
FEW = {name: schema for name, schema in SCHEMAS.items() if name.rpartition("-")[2] in {"0", "3"}}
