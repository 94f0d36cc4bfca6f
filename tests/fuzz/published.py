"""What is written is JSON to a plain parser, and as published."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from failsoft.schemas import interface

_FORMATS = jsonschema.FormatChecker()
_SCORED = jsonschema.Draft7Validator(interface.scored_schema(), format_checker=_FORMATS)
_HEADERS = jsonschema.Draft7Validator(interface.scored_headers_schema(), format_checker=_FORMATS)
_CONTROL = jsonschema.Draft7Validator(interface.headers_schema(due=True), format_checker=_FORMATS)
_DEAD = jsonschema.Draft7Validator(interface.headers_schema(dead=True), format_checker=_FORMATS)


def _no(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def plain(raw: bytes) -> Any:
    """As a reader in any other language would parse it: UTF-8, and no NaN or Infinity."""
    return json.loads(raw.decode("utf-8"), parse_constant=_no)


def hold_to_scored(value: bytes, headers: dict[str, str] | None = None, reason: str | None = None) -> dict[str, Any]:
    """An answer, with its headers if given; ``reason`` stands in for the one that it has."""
    found = plain(value)
    assert isinstance(found, dict)
    _SCORED.validate(found if reason is None else found | {"reason": reason})
    if headers is not None:
        _HEADERS.validate(headers)
    return found


def hold_to_control(headers: dict[str, str], dead: bool) -> None:
    """The control headers of a retry, or of a dead letter."""
    (_DEAD if dead else _CONTROL).validate(headers)
