"""Whether an answer fits its JSON schema, as jsonschema sees it.

The grammar held the answer to most of it; what it cannot hold is found here: oneOf, uniqueItems, and whatever it gets
wrong. Patterns were held by linear-time means, and are not tried again by others. Fetches no $ref from anywhere.
"""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend, validator_for
from referencing import Registry


def complaint(schema: str, text: str) -> str:
    """What is wrong with it, in one line; empty if nothing is."""
    try:
        found = _first(json.loads(schema), json.loads(text))
    except (ValueError, RecursionError) as error:
        return f"it cannot be read: {type(error).__name__}: {error}"[:300]
    except Exception as error:  # noqa: BLE001  a schema is a program of a stranger's
        return f"it cannot be validated: {type(error).__name__}: {error}"[:300]
    return "" if found is None else f"at {found.json_path}: {found.message}"[:300]


def _first(schema: Any, answer: Any) -> ValidationError | None:
    kind: Any = extend(validator_for(schema, default=Draft202012Validator), {"pattern": lambda *_: ()})
    found: ValidationError | None = next(kind(schema, registry=Registry()).iter_errors(answer), None)
    return found
