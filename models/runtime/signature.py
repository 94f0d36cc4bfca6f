"""A model's inputs and outputs, and the error for a card that does not match them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Port(Protocol):
    """An input or output of a model. A dimension in ``shape`` is a number if it is fixed."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str | None]: ...


class Mismatch(Exception):
    """The card and the model do not match. The message says where, and what to do."""
