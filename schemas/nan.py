"""Decodes events that have the literals NaN or Infinity, which JSON does not have but many writers give.

NaN is accepted as the value of a feature whose model knows missing values (``impute = "nan"``). Elsewhere, and for
Infinity, the message says where it is and what mends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any

from failsoft.schemas import wire

Place = tuple[dict[str, Any], str]
"""An object and the name of one of its values."""

# It begins with the letters that it looks for, and looks back afterwards: that is ten times faster.
_LITERAL_NAN = re.compile(rb"NaN(?<![\w.+\\-]NaN)(?![\w.+-])")
_LITERAL_OR_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|(?<![\w.+-])(?:NaN|-?Infinity)(?![\w.+-])', re.DOTALL)
_NAN = float("nan")
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
    """``wire.loads``, but NaN is decoded where ``may_be_nan`` of the decoded value allows it.

    A value without one of the literals costs no more than ``wire.loads``. Raises Malformed as that does, and for a
    literal elsewhere.
    """
    body, marks = _marked(raw, max_bytes, max_depth)
    if not marks:
        return body
    count = len(marks)
    for parent, name in may_be_nan(body):
        if marks.get(_text(parent[name])) == "NaN":
            del marks[parent[name]]
            parent[name] = _NAN
    if marks:
        mark, literal = next(iter(marks.items()))
        where = next(_places(body, mark, ""), "")[:_LONGEST_PATH]
        at = f" ({where})" if where else ""
        more = f" ({count} in the event)" if count > 1 else ""
        raise wire.Malformed(f"{literal} is not JSON{at}: {_WAYS_OUT[literal]}{more}")
    return body


def loads_anywhere(raw: bytes | None, max_bytes: int, max_depth: int = wire.MAX_DEPTH) -> Any:
    """``wire.loads``, with a text in place of each literal: to read an event's id or key, whatever else it has."""
    return _marked(raw, max_bytes, max_depth)[0]


def _marked(raw: bytes | None, max_bytes: int, max_depth: int) -> tuple[Any, dict[str, str]]:
    """The value, with a text in place of each literal, and the literals by these texts. Raises Malformed."""
    try:
        return wire.loads(raw, max_bytes, max_depth), {}
    except wire.NotJson:
        found = None if raw is None else _decoded(raw, max_depth)
        if found is None:
            raise
        return found


def _decoded(raw: bytes, max_depth: int) -> tuple[Any, dict[str, str]] | None:
    """The value of ``raw`` with each literal replaced by a text of its own, and the literals by these texts. None if it
    has no literal, or is not JSON even without.

    The texts contain a hash of ``raw``, so that no string of the event can equal one. At first each NaN is replaced
    wherever it is, which is fast. If one is inside a string, its quotes end that string, and the result is no JSON:
    only then, and for Infinity, which is refused anyway, strings are told apart.
    """
    infinite = b"Infinity" in raw
    if b"NaN" not in raw and not infinite:
        return None
    own = sha256(raw).hexdigest()
    for pattern in [_LITERAL_OR_STRING] if infinite else [_LITERAL_NAN, _LITERAL_OR_STRING]:
        marks: dict[str, str] = {}
        marked = pattern.sub(partial(_replaced, own, marks), raw)
        with suppress(wire.Malformed):
            return (wire.loads(marked, len(marked), max_depth), marks) if marks else None
    return None


def _replaced(own: str, marks: dict[str, str], match: re.Match[bytes]) -> bytes:
    text = match[0]
    if text.startswith(b'"'):
        return text
    mark = f"{own}-{len(marks)}"
    marks[mark] = text.decode()
    return b'"%b"' % mark.encode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _places(value: object, wanted: str, way: str) -> Iterator[str]:
    """The paths at which ``value`` has the text ``wanted``. It is no deeper than the limit of nesting."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, wanted, f"{way}.{name}" if way else name)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _places(inner, wanted, f"{way}[{i}]")
    elif value == wanted:
        yield way
