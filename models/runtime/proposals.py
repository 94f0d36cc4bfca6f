"""Owns the words for a card that does not fit a model's input: the input's shape, and the ``[[features]]`` that fit."""

from __future__ import annotations

from collections.abc import Iterable

from failsoft.models.runtime.element_types import card_dtype, card_type
from failsoft.models.runtime.signature import Port

SHOWN = 5
"""Inputs or features that a message names. A card for another model would otherwise fill the screen."""


def shape_text(shape: Iterable[int | str | None]) -> str:
    """A port's shape in words: ``[N, 24, 3]``, with N for the rows and ? for a dimension without a name."""
    first, *rest = shape
    return f"[{', '.join([_dimension(first, 'N'), *(_dimension(n, '?') for n in rest)])}]"


def _dimension(n: int | str | None, otherwise: str) -> str:
    return otherwise if n is None else str(n)


def described(port: Port) -> str:
    """The port's name, type and shape."""
    return f"{port.name!r} ({port.type}{' ' + shape_text(port.shape) if port.shape else ''})"


def proposal(port: Port, name: str | None = None, apart: bool = False) -> str:
    """The keys of ``[[features]]`` that fit the port, as one feature; ``apart``: one of its columns.

    The feature has the name of the port, or ``name`` and the port as its ``input``.
    """
    keys = {"name": f'"{name or port.name}"'}
    if name is not None and name != port.name:
        keys["input"] = f'"{port.name}"'
    rest = list(port.shape[1:])
    dtype = card_dtype(port)
    if apart or dtype is None or all(n == 1 for n in rest):
        keys["type"] = f'"{card_type(port)}"'
    else:
        keys |= {"type": '"tensor"', "dtype": f'"{dtype}"', "shape": str(_card_shape(rest)).replace("'", "")}
    return "[[features]] " + ", ".join(f"{key} = {value}" for key, value in keys.items())


def _card_shape(rest: list[int | str | None]) -> list[int | str]:
    """The shape in a card: the first free dimension is the length, and the model does not say the others."""
    shape: list[int | str] = []
    for n in rest:
        shape.append(n if isinstance(n, int) else "?" if -1 in shape else -1)
    return shape


def listed(words: Iterable[str], separator: str = ", ") -> str:
    """The first of ``words``, and how many more there are."""
    given = list(words)
    more = f"{separator}and {len(given) - SHOWN} more" if len(given) > SHOWN else ""
    return separator.join(given[:SHOWN]) + more
