"""Owns the words for a card that does not fit a model's input: the input's shape, and the ``[[features]]`` that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from failsoft.models.runtime.element_types import card_dtype, card_type
from failsoft.models.runtime.signature import Port

Item = TypeVar("Item")

SHOWN = 5
"""Inputs or features that a message names. A card for another model would otherwise fill the screen."""


def shape_text(shape: Sequence[int | str | None]) -> str:
    """A port's shape in words: ``[N, 24, 3]``, with N for the rows and ? for a dimension without a name."""
    first, *rest = shape
    return f"[{', '.join([_dimension(first, 'N'), *(_dimension(n, '?') for n in rest)])}]"


def _dimension(n: int | str | None, otherwise: str) -> str:
    return otherwise if n is None else str(n)


def described(port: Port) -> str:
    """The port's name, type and shape."""
    return f"{port.name!r} ({port.type}{' ' + shape_text(port.shape) if port.shape else ''})"


def proposal(port: Port, name: str | None = None) -> str:
    """The keys of ``[[features]]`` that fit the port, as one feature.

    The feature has the name of the port, or ``name`` and the port as its ``input``.
    """
    keys = {"name": f'"{name or port.name}"'}
    if name is not None and name != port.name:
        keys["input"] = f'"{port.name}"'
    rest = list(port.shape[1:])
    dtype = card_dtype(port)
    if dtype is None or rest in ([], [1]):
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


def listed(items: Sequence[Item], word: Callable[[Item], str], separator: str = ", ") -> str:
    """The first of ``items``, each by its ``word``, and how many more there are."""
    more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join([*map(word, items[:SHOWN]), *more])
