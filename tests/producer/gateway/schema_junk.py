"""Bodies by a JSON schema: mostly as it says, and here and there anything at all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["", "cfo", "cfo@1", "_base", "auto", "\x00", "json_schema", "required", "😀", "../x"]),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=8), st.sampled_from(["type", "function", "name", "schema", "json_schema"])),
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
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, schemas)
    if kind == "array":
        return st.lists(bodies(schema["items"], schemas), min_size=min(1, schema["minItems"]), max_size=3)
    if kind == "integer":
        return st.integers(schema.get("minimum", -5), min(64, schema.get("maximum", 64)))
    if kind == "number":
        return st.floats(schema.get("minimum", schema.get("exclusiveMinimum", 0)), schema.get("maximum", 2))
    if kind == "boolean":
        return st.booleans()
    return st.text(max_size=12)


def _object(schema: dict[str, Any], schemas: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = schema.get("properties", {})
    if not properties:
        return st.one_of(JUNK, st.dictionaries(st.text("0123456789", min_size=1, max_size=3), st.floats(-100, 100)))
    fields = {name: bodies(each, schemas) for name, each in properties.items()}
    if "model" in fields:
        fields["model"] = st.sampled_from(["cfo", "money", "_base", "cfo@1", "cfo@2", "nobody", ""])
    required = {name: fields.pop(name) for name in schema["required"]}
    some = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True)
    return some.flatmap(lambda names: st.fixed_dictionaries(required | {name: fields[name] for name in names}))
