"""Gives the cells of a CSV file the JSON types that the models' cards say. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.features.spec import FeatureType, Spec

Json = bool | int | float | str | list[Any] | None

_NUMBER = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
# 01234 may be a post code and +49 a phone number, so neither is a number. JSON does not allow them as numbers either.
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_BITS = {"1": True, "0": False, "1.0": True, "0.0": False}
_NONE = frozenset({"NaN", "nan", "NA", "<NA>", "null", "NULL", "None"})
"""How pandas, numpy, R and SQL write that a number is missing. As a string each may be a value: NA is Namibia."""


def typed(cell: str, spec: Spec) -> Json:
    """The JSON value of a cell of this feature. ``cell`` is not empty.

    A cell that is not of the feature's type stays the text that it is, so that a worker finds the event invalid: which
    number "1,050.5" is meant to be is not guessed.
    """
    if spec.type is FeatureType.STRING:
        return cell
    if cell in _NONE:  # null would be the base64 of three bytes
        return None
    if spec.type is FeatureType.TENSOR:
        return _tensor(cell)
    if spec.type is FeatureType.BOOL:
        return _WORDS.get(cell, _BITS.get(cell, cell))
    return _number(cell)


def looks_like(cell: str) -> Json:
    """The JSON value of a cell of which no card knows the type, by its look: true, false, a number in JSON's notation,
    else text. ``cell`` is not empty.
    """
    word = _WORDS.get(cell)
    return _number(cell) if word is None else word


def _number(cell: str) -> int | float | str:
    if cell[0] not in "-.0123456789" or not _NUMBER.fullmatch(cell):
        return cell
    if cell.lstrip("-").isdigit() and -(2**63) <= (whole := int(cell)) < 2**63:
        return whole
    number = float(cell)
    return number if math.isfinite(number) else cell  # JSON has no infinity


def _tensor(cell: str) -> str | list[Any]:
    """A list as JSON, or base64 as it is."""
    if not cell.startswith("["):
        return cell
    try:
        value = wire.loads(cell.encode(), len(cell) * 4)
    except wire.Malformed:
        return cell
    return value if isinstance(value, list) else cell


def places(specs: Iterable[Spec]) -> dict[str, tuple[str, ...]]:
    """Where each path of ``specs`` is written: the names of the objects on the way, and its own name there.

    A ``field`` with dots is written into objects. A name with dots, and a path through another feature's value, is
    written as one name, which is found first.
    """
    paths = {spec.path: spec.field is not None for spec in specs}
    found = {}
    for path, nested in paths.items():
        steps = path.split(".")
        through = any(".".join(steps[:n]) in paths for n in range(1, len(steps)))
        found[path] = tuple(steps) if nested and not through else (path,)
    return found


def put(event: dict[str, Any], steps: Sequence[str], value: object) -> None:
    """Set a value in an object, and make the objects on the way. If there is something else, one name has the dots."""
    at = event
    for n, name in enumerate(steps[:-1]):
        inner = at.setdefault(name, {})
        if not isinstance(inner, dict):
            at[".".join(steps[n:])] = value
            return
        at = inner
    at[steps[-1]] = value


def object_at(event: dict[str, Any], steps: Sequence[str]) -> dict[str, Any]:
    """The object at ``steps`` of an event; a new one if none is there."""
    at: Any = event
    for name in steps:
        at = at.get(name) if isinstance(at, dict) else None
    if isinstance(at, dict):
        return at
    made: dict[str, Any] = {}
    put(event, steps, made)
    return made


def by_column(specs: Iterable[Spec], columns: Sequence[str]) -> Mapping[int, Spec]:
    """The feature of each column that has one: the column has its name, or else its path. By index of the column.

    Raises ValueError if two columns are one feature.
    """
    specs = list(specs)
    names = {spec.path: spec for spec in specs} | {spec.name: spec for spec in specs}
    found = {i: names[column] for i, column in enumerate(columns) if column in names}
    first: dict[str, int] = {}
    for i, spec in found.items():
        if first.setdefault(spec.path, i) != i:
            raise ValueError(f"{columns[first[spec.path]]!r} and {columns[i]!r} are both the feature {spec.name!r}")
    return found
