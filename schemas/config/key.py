"""Attaches its meaning to each key of pipeline.toml and card.toml. The reference pages print it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, WithJsonSchema

LEFT_OUT = "x-left-out"
"""Key in a field's JSON schema: the effect of leaving the key out, where the default alone does not explain it."""


def means(meaning: str, *examples: Any, left_out: str | None = None, **schema: Any) -> Any:
    """Metadata for ``Annotated`` that documents a key.

    ``examples`` are TOML values (a section needs none), ``left_out`` is the default in words, ``schema`` has further
    JSON schema entries.
    """
    extra = schema if left_out is None else {LEFT_OUT: left_out, **schema}
    return Field(description=meaning, examples=list(examples) or None, json_schema_extra=extra)


def written(pattern: str) -> WithJsonSchema:
    """Metadata for ``Annotated``: in the file the value is a string that matches ``pattern``."""
    return WithJsonSchema({"type": "string", "pattern": pattern})
