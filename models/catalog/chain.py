"""The grammar of a fallback chain: which links a card may list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from failsoft.schemas.model_version import NAME_PATTERN, is_model_name

_RULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

PATTERN = rf"^(model:{NAME_PATTERN.strip('^$')}|last_known|rule:{_RULE.pattern}|static)$"
"""The grammar of ``parse``, for JSON Schemas. An editor whose ``\\w`` is ASCII marks a rule with other letters."""

_FORMS = '"model:NAME", "last_known", "rule:PACKAGE.MODULE:FUNCTION" or "static"'


class LinkKind(StrEnum):
    """What a link gets its answer from."""

    MODEL = "model"
    LAST_KNOWN = "last_known"
    RULE = "rule"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a fallback chain.

    Attributes:
        kind: what the link gets its answer from.
        target: the model's name, or the rule as ``package.module:function``; None for other kinds.
    """

    kind: LinkKind
    target: str | None = None

    def __str__(self) -> str:
        return self.kind.value if self.target is None else f"{self.kind.value}:{self.target}"


def parse(text: str) -> Link:
    """Parses a link such as ``"model:lite"``. Raises ValueError with the allowed forms."""
    kind, colon, target = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon and kind in (LinkKind.LAST_KNOWN, LinkKind.STATIC):
        return Link(LinkKind(kind))
    if kind == LinkKind.MODEL and is_model_name(target):
        return Link(LinkKind.MODEL, target)
    if kind == LinkKind.RULE and _RULE.fullmatch(target):
        return Link(LinkKind.RULE, target)
    raise ValueError(f"{text!r} is not a link of a fallback chain: it may be {_FORMS}")
