"""docs/reference/commands.md: every command of ``failsoft`` with its arguments and options, as in ``--help``."""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import typer

from docs.markdown import code, page, table
from failsoft.workers.cli import app
from failsoft.workers.settings import OTHER_ENV

ENVIRONMENT = {
    **OTHER_ENV,
    "NO_COLOR": "Set to anything: no colours.",
}
"""Environment variables that commands read, besides those that set keys of the pipeline file."""

_FOREIGN = {"help", "install_completion", "show_completion"}
"""Options that typer adds. Their help texts are typer's."""

_TYPES = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}


def commands() -> Iterator[tuple[str, Any]]:
    """Each command and the words that call it. The program comes first, and a group before its commands."""
    yield from _walk("failsoft", typer.main.get_command(app))


def parameters(command: Any) -> list[Any]:
    """The command's own arguments and options, as ``--help`` shows them."""
    return [p for p in command.params if not getattr(p, "hidden", False) and p.name not in _FOREIGN]


def commands_page() -> str:
    """docs/reference/commands.md."""
    return page(
        "# Commands",
        "",
        "The text of `failsoft COMMAND --help`. Data goes to stdout: as a table on a terminal, as one JSON object per",
        "line in a pipe or with `--json`. Progress and messages go to stderr. Generated from `workers/commands`.",
        "",
        *(line for words, command in commands() for line in _command(words, command)),
        "## Environment",
        "",
        "An environment variable can also set each key of the pipeline file: see [pipeline.toml](pipeline.md).",
        "",
        *table(("variable", "meaning"), ((code(name), meaning) for name, meaning in ENVIRONMENT.items())),
    )


def _walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _walk(f"{words} {name}", inner)


def _command(words: str, command: Any) -> Iterator[str]:
    yield from (f"## {words}", "", *inspect.cleandoc(command.help or "").splitlines(), "")
    types = _annotations(command)
    rows = [(_spelled(p), _type(p, types.get(p.name)), _default(p), p.help) for p in parameters(command)]
    if rows:
        yield from (*table(("argument or option", "value", "default", "meaning"), rows), "")


def _annotations(command: Any) -> dict[str, Any]:
    """The type hints of the command's function. Typer's parameters hold types in a way that differs by its version."""
    return typing.get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return code(parameter.metavar or parameter.name.upper())
    return ", ".join(map(code, [*parameter.opts, *parameter.secondary_opts]))


def _type(parameter: Any, annotation: Any) -> str:
    if parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar:
        return code(parameter.metavar)
    kind = _bare(annotation)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(code(each.value) for each in kind)
    return code(_TYPES[kind])


def _bare(annotation: Any) -> Any:
    """``list[str] | None`` -> ``str``."""
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        return _bare(next(each for each in typing.get_args(annotation) if each is not type(None)))
    return _bare(typing.get_args(annotation)[0]) if typing.get_origin(annotation) is list else annotation


def _default(parameter: Any) -> str:
    if parameter.required:
        return "**required**"
    default = parameter.default
    if getattr(parameter, "is_flag", False) or not isinstance(default, (str, int, float)) or default == "":
        return ""
    return code(f"{default:g}" if isinstance(default, float) else str(default))
