"""The form of an answer, from the command line: --json-schema, --json-object, --regex, --choice, --grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

_FLAGS = ("json_schema", "json_object", "regex", "choice", "grammar")


def form_of(context: typer.Context) -> dict[str, Any]:
    """response_format= of submit, from the one flag that was given, if any."""
    given = {name: value for name in _FLAGS if (value := context.params[name]) or value == ""}
    if not given:
        return {}
    if len(given) > 1:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise typer.BadParameter(f"{flags}: an answer has one form", param_hint=flags.split(",")[0])
    [(name, value)] = given.items()
    return {"response_format": _form(name, value)}


def _form(name: str, value: Any) -> dict[str, Any]:
    if name == "json_schema":
        text = value if value.lstrip().startswith("{") else _read(Path(value), "--json-schema")
        return {"kind": "json_schema", "value": text}
    if name == "grammar":
        return {"kind": "lark", "value": _read(value, "--grammar")}
    if name == "json_object":
        return {"kind": "json_object"}
    return {"type": name, "choices": value} if name == "choice" else {"kind": name, "value": value}


def _read(file: Path, flag: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint=flag) from None
