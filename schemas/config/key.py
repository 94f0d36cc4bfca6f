"""The meaning of a key of pipeline.toml or card.toml: it stands beside the key, and the reference pages print it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, WithJsonSchema

LEFT_OUT = "x-left-out"
"""In a field's JSON schema: what holds where the key is left out and its default alone does not say it."""


def means(meaning: str, *examples: Any, left_out: str | None = None, **schema: Any) -> Any:
    """For ``Annotated``: what the key means, values as TOML has them, its default in words, and what else its JSON
    schema says.
    """
    extra = schema if left_out is None else {LEFT_OUT: left_out, **schema}
    return Field(description=meaning, examples=list(examples), json_schema_extra=extra)


def written(pattern: str) -> WithJsonSchema:
    """For ``Annotated``: the file has a string of this form, whatever the program makes of it."""
    return WithJsonSchema({"type": "string", "pattern": pattern})
