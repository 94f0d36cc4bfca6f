"""A model version and its text form ``model@version``, the key of its breaker, session and metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
"""A model's name. An ``@`` in it would make ``m@2`` both a model and a version of the model ``m``."""

_NAME = re.compile(NAME_PATTERN.strip("^$"))
_DIGITS = 18
"""Most digits of a version number: an int64 holds every number of 18 digits."""


@dataclass(frozen=True, slots=True, order=True)
class ModelVersion:
    """A model's name and one of its version numbers."""

    model: str
    version: int

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> ModelVersion | None:
        """The version that ``text`` names, or None.

        Accepts only text that ``str`` writes: ``m@02`` would be a second key for ``m@2``.
        """
        model, _, number = text.rpartition("@")
        if not (model and number.isascii() and number.isdigit() and len(number) <= _DIGITS):
            return None
        found = cls(model, int(number))
        return found if str(found) == text else None

    @classmethod
    def of_key(cls, key: str) -> ModelVersion:
        """The version that ``key``, a text made by ``str``, names. Raises ValueError for any other text."""
        found = cls.parse(key)
        if found is None:
            raise ValueError(f"{key!r} is not a model version: it must be MODEL@VERSION")
        return found


SCHEMA_REGISTRY = ModelVersion("dependency:schema_registry", 0)
"""The key of the schema registry's breaker: a dependency has a breaker as a version has, and a model no colon."""


def model_of(key: str) -> str | None:
    """The model that ``key`` names, or None when the key is not ``model@version``."""
    found = ModelVersion.parse(key)
    return None if found is None else found.model


def is_model_name(name: str) -> bool:
    """Can ``name`` be a model's name?"""
    return _NAME.fullmatch(name) is not None


def check_model_name(name: str) -> str:
    """Returns ``name``. Raises ValueError if it cannot be a model's name."""
    if not is_model_name(name):
        raise ValueError(
            f"{name!r} cannot be a model's name: use letters, digits, '.', '_' and '-', at most 200, "
            "a letter or digit first"
        )
    return name
