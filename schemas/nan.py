"""Decodes events that have the literals NaN or Infinity, which JSON does not have but many writers give.

NaN is accepted as the value of a feature whose model knows missing values (``impute = "nan"``). Within the list of a
tensor both are decoded, so that the feature is unusable and not the event. Elsewhere the message says where it is and
what mends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from failsoft.schemas import wire

Place = tuple[dict[str, Any], str]
"""An object and the name of one of its values."""

_LITERAL = re.compile(rb"(?:NaN(?<![\w.+-]NaN)|Infinity(?<![\w.+-]Infinity)|-Infinity(?<![\w.+-]-Infinity))(?![\w.+-])")
"""It begins with the letters that it looks for, and looks back afterwards: that is faster than to look back first."""
_MOST = 10_000
"""Literals in an event that are decoded: more than a tensor has in which some elements could not be computed."""
_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_LONGEST_PATH = 100
"""Characters of a path in a message: an event's names may be as long as the event."""
_WAYS_OUT = {
    "NaN": 'write null, or give that feature impute = "nan" in the card of a model that knows missing values',
    "Infinity": "write null, or a finite number",
    "-Infinity": "write null, or a finite number",
}


def nowhere(_: Any) -> Iterator[Place]:
    """NaN is accepted as no value."""
    return iter(())


def loads(
    raw: bytes | None,
    max_bytes: int,
    max_depth: int = wire.MAX_DEPTH,
    may_be_nan: Callable[[Any], Iterator[Place]] = nowhere,
) -> Any:
    """``wire.loads``, but NaN is decoded where ``may_be_nan`` of the decoded value allows it, and Infinity too within
    the lists that are there.

    A value without one of the literals costs no more than ``wire.loads``. Raises Malformed as that does, and for a
    literal elsewhere.
    """
    body, marks, counts = _marked(raw, max_bytes, max_depth)
    if not marks:
        return body
    left = dict(counts)
    for parent, name in may_be_nan(body):
        if isinstance(parent[name], list):
            _decode_within(parent[name], marks, left)
        elif marks.get(_text(parent[name])) == "NaN":
            left["NaN"] -= 1
            parent[name] = _NUMBERS["NaN"]
    if any(left.values()):
        where, literal = _first(body, marks) or ("", next(literal for literal, n in left.items() if n))
        raise _refused(literal, where, sum(counts.values()))
    return body


def loads_anywhere(raw: bytes | None, max_bytes: int, max_depth: int = wire.MAX_DEPTH) -> Any:
    """``wire.loads``, with a text in place of each literal: to read an event's id or key, whatever else it has."""
    return _marked(raw, max_bytes, max_depth)[0]


def _marked(raw: bytes | None, max_bytes: int, max_depth: int) -> tuple[Any, dict[str, str], dict[str, int]]:
    """The value, with a text in place of each literal; the literals by these texts; how often each is there. Raises
    Malformed.
    """
    try:
        return wire.loads(raw, max_bytes, max_depth), {}, {}
    except wire.NotJson:
        found = None if raw is None else _decoded(raw, max_depth)
        if found is None:
            raise
        return found


def _decoded(raw: bytes, max_depth: int) -> tuple[Any, dict[str, str], dict[str, int]] | None:
    """The value of ``raw`` with a text in place of each literal; the literals by these texts; how often each is there.
    None if ``raw`` has no literal, or is not JSON even without. Raises Malformed if it has too many.

    The texts contain a hash of ``raw``, so that no string of the event can equal one.
    """
    places = _literals(raw)
    if not places:
        return None
    if len(places) > _MOST:
        raise _refused(_LITERAL.match(raw, places[0])[0].decode(), "", len(places))  # type: ignore[index]
    own = sha256(raw).hexdigest()
    marks: dict[str, str] = {}
    counts: dict[str, int] = {}
    parts: list[bytes] = []
    end = 0
    for begin in places:
        literal = "NaN" if raw[begin] == ord("N") else "Infinity" if raw[begin] == ord("I") else "-Infinity"
        mark = f"{own}-{literal}"
        marks[mark] = literal
        counts[literal] = counts.get(literal, 0) + 1
        parts += raw[end:begin], b'"%b"' % mark.encode()
        end = begin + len(literal)
    marked = b"".join([*parts, raw[end:]])
    with suppress(wire.Malformed):
        return wire.loads(marked, len(marked), max_depth), marks, counts
    return None


def _literals(raw: bytes) -> list[int]:
    """Where a literal begins that is not inside a string: an even number of quotes is before it.

    The quotes are found at C speed, since an event may be of strings and literals only.
    """
    if b"NaN" not in raw and b"Infinity" not in raw:
        return []
    plain = raw.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in raw else raw
    places: list[int] = []
    quotes, end = 0, 0
    for match in _LITERAL.finditer(raw):
        begin = match.start()
        quotes += plain.count(b'"', end, begin)
        end = begin
        if not quotes % 2:
            places.append(begin)
    return places


def _decode_within(values: list[Any], marks: Mapping[str, str], left: dict[str, int]) -> None:
    """Puts the numbers in place of the texts ``marks`` in a list of lists, and counts them out of ``left``."""
    for i, value in enumerate(values):
        if isinstance(value, list):
            _decode_within(value, marks, left)
        elif (literal := marks.get(_text(value))) is not None:
            left[literal] -= 1
            values[i] = _NUMBERS[literal]


def _refused(literal: str, where: str, count: int) -> wire.Malformed:
    at = f" ({where[:_LONGEST_PATH]})" if where else ""
    more = f" ({count} in the event)" if count > 1 else ""
    return wire.Malformed(f"{literal} is not JSON{at}: {_WAYS_OUT[literal]}{more}")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _first(value: object, marks: Mapping[str, str]) -> tuple[str, str] | None:
    """The path of the first of the texts ``marks`` in a value, and its literal. The value is no deeper than the limit
    of nesting.
    """
    if isinstance(value, str):
        return ("", marks[value]) if value in marks else None
    if not isinstance(value, (dict, list)):
        return None
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found = _first(inner, marks)
        if found is not None:
            step = name if isinstance(value, dict) else f"[{name}]"
            return f"{step}{'.' if found[0] and not found[0].startswith('[') else ''}{found[0]}", found[1]
    return None
