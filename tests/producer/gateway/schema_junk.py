"""Bodies by a JSON schema: mostly as it says, and here and there anything at all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

KEYS = [
    "type",
    "function",
    "name",
    "schema",
    "json_schema",
    "allowed_tools",
    "tools",
    "mode",
    "grammar",
    "value",
    "kind",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "cfo",
            "cfo@1",
            "_base",
            "auto",
            "\x00",
            "json_schema",
            "required",
            "allowed_tools",
            "function",
            "regex",
            "choice",
            "😀",
            "../x",
        ]
    ),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=8), st.sampled_from(KEYS)),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


def bodies(schema: dict[str, Any], schemas: dict[str, Any]) -> st.SearchStrategy[Any]:
    """One value in eight is junk."""
    proper = _proper(schema, schemas)
    return st.integers(0, 7).flatmap(lambda draw: JUNK if draw == 0 else proper)


def _proper(schema: dict[str, Any], schemas: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return bodies(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return st.one_of(*(bodies(each, schemas) for each in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "object":
        return _object(schema, schemas)
    if schema["type"] == "array":
        return st.lists(bodies(schema["items"], schemas), min_size=min(1, schema["minItems"]), max_size=3)
    return _scalar(schema)


def _scalar(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    by_kind: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(low, min(8, schema.get("maximum", 8))),
        "number": st.floats(low, schema.get("maximum", 2)),
        "boolean": st.booleans(),
    }
    return by_kind.get(schema["type"], st.text(max_size=12))


def _object(schema: dict[str, Any], schemas: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = schema.get("properties", {})
    if not properties:
        return st.one_of(JUNK, st.dictionaries(st.text("0123456789", min_size=1, max_size=3), st.floats(-100, 100)))
    fields = {name: bodies(each, schemas) for name, each in properties.items()}
    if "model" in fields:
        fields["model"] = st.sampled_from(["cfo", "money", "_base", "cfo@1", "cfo@2", "nobody", ""])
    required = {name: fields.pop(name) for name in schema["required"]}
    some = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True) if fields else st.just([])
    return some.flatmap(lambda names: st.fixed_dictionaries(required | {name: fields[name] for name in names}))
