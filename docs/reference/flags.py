"""Every command with its arguments, flags, variables and defaults, as typer has them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from typer.main import get_command

from docs.reference.markdown import code, prose, table
from lorapool.producer.cli import app as producer
from lorapool.worker.cli import app as worker

HEAD = """# Commands and flags

Each flag is also an environment variable of its name; what is given on the command line wins. A flag that may be
repeated takes several values from its variable too, separated by spaces. Exit codes of `lorapool`: 0 done, 1 refused or
failed, 2 wrong usage.
"""
MANY = 6  # readers of a variable that are named one by one
Command = tuple[str, Any]


def page() -> str:
    parts = [HEAD]
    for name, app in (("lorapool", producer), ("lorapool-worker", worker)):
        commands = list(_commands(name, get_command(app)))
        common = _common(commands)
        parts.append(f"## `{name}`\n")
        if common:
            parts += ["Every command takes:\n", _table(common)]
        for path, command in commands:
            parts += _command(path, command, {option.opts[0] for option in common})
    parts += ["## Environment variables\n", _variables()]
    return "\n".join(parts)


def _commands(path: str, command: Any) -> Iterator[Command]:
    if not hasattr(command, "commands"):
        yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from _commands(f"{path} {name}", sub)


def _options(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "option" and not param.is_eager]


def _common(commands: list[Command]) -> list[Any]:
    """The flags that every command has, with the same words."""
    rows = [{_row(option) for option in _options(command)} for _, command in commands]
    shared = set.intersection(*map(set, rows))
    return [option for option in _options(commands[0][1]) if _row(option) in shared]


def _command(path: str, command: Any, common: set[str]) -> list[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    own = [option for option in _options(command) if option.opts[0] not in common]
    usage = " ".join([path, *map(_metavar, arguments), "[OPTIONS]"])
    parts = [f"### `{path}`\n", f"```text\n{usage}\n```\n", _help(command.help)]
    if arguments:
        parts.append(table(("argument", ""), [(code(_metavar(param)), param.help or "") for param in arguments]))
    return [*parts, _table(own)] if own else parts


def _help(text: str) -> str:
    """A command's help; the lines of it that are commands stand as such."""
    paragraphs = text.split("\n\n")
    shown = (f"```text\n{part}\n```" if part.startswith("lorapool") else prose(part) for part in paragraphs)
    return "\n\n".join(shown) + "\n"


def _metavar(param: Any) -> str:
    name = str(param.metavar or param.name.upper())
    if param.nargs != 1 and "..." not in name:
        name += "..."
    return name if param.required or name.startswith("[") else f"[{name}]"


def _table(options: list[Any]) -> str:
    return table(("flag", "variable", "default", ""), map(_row, options))


def _row(option: Any) -> tuple[str, str, str, str]:
    flags = ", ".join(code(flag) for flag in sorted(option.opts, key=len, reverse=True))
    return flags, code(option.envvar), _default(option), option.help + (" Repeatable." if _repeats(option) else "")


def _repeats(option: Any) -> bool:
    return option.multiple and "repeat" not in option.help


def _default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default
    if value is None or value == "" or value is False or callable(value):
        return ""
    return code(value.value if isinstance(value, Enum) else value)


def _variables() -> str:
    """Each variable with the commands that read it."""
    readers: dict[str, list[str]] = {}
    for name, app in (("lorapool", producer), ("lorapool-worker", worker)):
        for path, command in _commands(name, get_command(app)):
            for option in _options(command):
                readers.setdefault(option.envvar, []).append(path)
    rows = [(code(variable), _readers(paths)) for variable, paths in sorted(readers.items())]
    return table(("variable", "read by"), rows)


def _readers(paths: list[str]) -> str:
    return ", ".join(map(code, paths)) if len(paths) <= MANY else f"{len(paths)} commands"
