"""A file of the user's that is refused: which file, which key, what it may be, and the nearest spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError


class Refused(Exception):
    """A pipeline file or a card that cannot be used as it stands; nothing has been read or changed. Exit code 3."""

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))


def refuse(file: str, error: ValidationError, schema: type[BaseModel]) -> Refused:
    """``error``, met when ``file`` was read as ``schema``, in words that name each key."""
    return Refused(file, [_problem(e["loc"], e["type"], e["msg"], schema) for e in error.errors()])


def near(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` when something known is spelled nearly so, else nothing."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _problem(loc: tuple[int | str, ...], kind: str, message: str, schema: type[BaseModel]) -> str:
    key = ".".join(f"[{part}]" if isinstance(part, int) else part for part in loc).replace(".[", "[")
    if kind == "extra_forbidden":
        names = _keys(schema, loc[:-1])
        known = f"; known here: {', '.join(sorted(names))}" if names else ""
        return f"{key}: no such key{near(str(loc[-1]), names)}{known}"
    if kind == "missing":
        return f"{key}: missing, and it has no default"
    told = message.removeprefix("Value error, ")
    return f"{key}: {told}" if key else told


def _keys(schema: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys that ``schema`` knows at ``path``."""
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
