"""Checks that written bytes are plain JSON and conform to the published schemas."""

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
    raise AssertionError(f"{constant} is not JSON")


def plain(raw: bytes) -> Any:
    """Parses ``raw`` as a reader in any other language would: UTF-8, without NaN or Infinity."""
    return json.loads(raw.decode("utf-8"), parse_constant=_no)


def hold_to_scored(value: bytes, headers: dict[str, str] | None = None, reason: str | None = None) -> dict[str, Any]:
    """Validates an answer, and its headers if given; ``reason`` replaces the answer's own. Returns it parsed."""
    found = plain(value)
    assert isinstance(found, dict)
    _SCORED.validate(found if reason is None else found | {"reason": reason})
    if headers is not None:
        _HEADERS.validate(headers)
    return found


def hold_to_control(headers: dict[str, str], dead: bool) -> None:
    """Validates the control headers of a retry record or a dead letter."""
    (_DEAD if dead else _CONTROL).validate(headers)
