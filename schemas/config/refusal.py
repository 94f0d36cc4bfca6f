"""Refuses a user's file: the error names the file, the key, the allowed values and the nearest spelling."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


MOST_PROBLEMS = 20
"""Problems of one file that a refusal lists. A user with more can start with these."""

DEEPEST = 32
"""Levels of tables and arrays in a file. Valid files have at most four; very deep ones reach Python's recursion
limit."""

_LONGEST = 500
"""Characters of one problem's text; a key in it gets a fifth of that. The file may hold a megabyte by mistake."""


class Refused(Exception):
    """A pipeline file or a card is unusable as it is. Nothing has been read from it or changed. Exit code 3."""

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))


def refuse(file: str, error: ValidationError, schema: type[BaseModel]) -> Refused:
    """Translate ``error``, raised when ``file`` was validated as ``schema``, into a refusal that names each key."""
    problems = [_problem(e["loc"], e["type"], _wanted(e) or e["msg"] + _nearest(e), schema) for e in error.errors()]
    more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
    return Refused(file, [shortened(problem) for problem in problems[:MOST_PROBLEMS]] + more)


def toml(file: str, text: str) -> dict[str, Any]:
    """Parse ``text``, the content of ``file``, as TOML.

    Raises TOMLDecodeError for a syntax error, and Refused for nesting or numbers beyond the limits.
    """
    if _DOTTED.search(text):
        raise Refused(file, [_TOO_DEEP])
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise Refused(file, [_TOO_DEEP]) from None
    except ValueError:  # Python's limit on the digits of an integer
        raise Refused(file, ["a number of thousands of digits; TOML integers have at most 64 bits"]) from None
    problems = list(_faults(found))
    if problems:
        raise Refused(file, problems[:MOST_PROBLEMS])
    return found


# tomllib needs quadratic time for a dotted key: one with twenty thousand dots took half a minute.
_DOTTED = re.compile(rf"(?:^|[\[{{,])[ \t]*+(?:[^\s.=\[\]{{}},:]++[ \t]*+\.[ \t]*+){{{DEEPEST}}}", re.MULTILINE)
_TOO_DEEP = f"nested deeper than {DEEPEST} levels; is there a bracket, or a dot in a key, by mistake?"


def _faults(found: dict[str, Any]) -> Iterator[str]:
    """Problems of a parsed TOML file that would otherwise cause a later error without the key's name."""
    level: list[tuple[str, Any]] = list(found.items())
    depth = 1
    while level:
        if depth > DEEPEST:
            yield f"{spelled(level[0][0])}: {_TOO_DEEP}"
            return
        inner: list[tuple[str, Any]] = []
        for key, value in level:
            if isinstance(value, dict):
                inner += [(f"{key}.{name}", each) for name, each in value.items()]
            elif isinstance(value, list):
                inner += [(f"{key}[{i}]", each) for i, each in enumerate(value)]
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                yield f"{spelled(key)}: a whole number of {value.bit_length()} bits; TOML integers have at most 64"
        level, depth = inner, depth + 1


def shortened(text: str, longest: int = _LONGEST) -> str:
    """``text`` cut to at most ``longest`` characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def spelled(key: str) -> str:
    """``key`` as an error message can show it: cut to a bounded length, without control characters."""
    short = shortened(key, _LONGEST // 5)
    return short if short.isprintable() else repr(short)


def near(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` when a known word has a similar spelling, else ""."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _wanted(error: ErrorDetails) -> str | None:
    """Where a list or a table is wanted, this in TOML's words; None for other mistakes."""
    given = shortened(repr(error["input"]), _LONGEST // 5)
    match error["type"]:
        case "tuple_type" | "list_type" if isinstance(error["input"], dict):
            return f"one table, and not a list of tables: write [[{error['loc'][-1]}]] over each"
        case "tuple_type" | "list_type":
            return f"{given} is not a list: write its values in brackets, separated by commas"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{given} is not a table: write its keys in braces, or under its name in brackets"
    return None


def _nearest(error: ErrorDetails) -> str:
    """A hint at the allowed word that is spelled most like the given one."""
    given = error["input"]
    if error["type"] != "literal_error" or not isinstance(given, str):
        return ""
    return near(shortened(given), re.findall(r"'([^']*)'", error["ctx"]["expected"]))


def _problem(loc: tuple[int | str, ...], kind: str, message: str, schema: type[BaseModel]) -> str:
    key = ".".join(f"[{part}]" if isinstance(part, int) else part for part in loc).replace(".[", "[")
    key = spelled(key)
    if kind == "extra_forbidden":
        names = _keys(schema, loc[:-1])
        known = f"; known here: {', '.join(sorted(names))}" if names else ""
        return f"{key}: no such key{near(shortened(str(loc[-1])), names)}{known}"
    if kind == "missing":
        return f"{key}: missing, and it has no default"
    text = message.removeprefix("Value error, ")
    return f"{key}: {text}" if key else text


def _keys(schema: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys that ``schema`` accepts at ``path``."""
    here: type[BaseModel] | None = schema
    for part in path:
        if isinstance(part, int):
            continue
        assert here is not None
        fields = {(f.alias or name): f for name, f in here.model_fields.items()}
        here = _model_in(fields[part].annotation) if part in fields else None
        if here is None:
            return []
    assert here is not None
    return [f.alias or name for name, f in here.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_model_in, get_args(annotation)) if m is not None), None)
