"""The parts of one decoded event: checks its id, finds its features, and chooses its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from failsoft.schemas import times, wire
from failsoft.schemas.event import MAX_ID, iso
from failsoft.schemas.features.paths import Absent, find
from failsoft.schemas.features.words import kind
from failsoft.schemas.record import Origin


def at(body: Mapping[str, Any], path: str) -> Any:
    """The value at ``path``; None if there is none."""
    found = find(body, path)
    return None if isinstance(found, Absent) else found


def identity(value: object, path: str) -> str | None:
    """The id that ``value``, found at ``path``, is; None if there is none. Raises Malformed for another type."""
    if value is None or value == "" or isinstance(value, Absent):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise wire.Malformed(f"{path} is {kind(value)}; an id is a string or a 64-bit integer")


def bounded(identity: str) -> str:
    """The id itself. Raises Malformed for one that is too long."""
    if len(identity) > MAX_ID:
        raise wire.Malformed(f"the id has {len(identity)} characters, over the limit of {MAX_ID}")
    return identity


def holder(value: object, path: str) -> Mapping[str, Any]:
    """The object with the features, found at ``path``. Raises Malformed for another value or none."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Absent):
        problem = f"{path} is {kind(value)}"
    else:
        problem = f"{path} is missing" if "." not in path else f"{path}: {value.why}"
    raise wire.Malformed(f"{problem}; it must hold the features")


def first_time(given: Sequence[object], origin: Origin) -> tuple[str, str | None]:
    """The first of the ``given`` values that is a time, or else the record's own; None and Absent stand for a missing
    one.

    With it, if none is a time, what is wrong with the first that is there.
    """
    present = [value for value in given if value is not None and not isinstance(value, Absent)]
    for value in present:
        time = times.time(value)
        if time is not None:
            return time, None
    return iso(origin.timestamp), times.unreadable(present[0]) if present else None
