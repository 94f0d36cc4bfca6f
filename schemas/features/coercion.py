"""Values of another JSON type that mean the same: ``coerce`` of a card.

Only what cannot mean anything else: no spaces, no separators of thousands, no decimal comma, no words for numbers.
"""

from __future__ import annotations

import re

from failsoft.schemas.features.spec import FeatureType

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A number as RFC 8259 writes it: no plus sign, no leading zero, no bare point."""

_LONGEST = 400
"""Characters of a number in a string. A double needs up to 325 without an exponent."""

_WORDS = {"true": True, "false": False}


def coerced(value: object, kind: FeatureType) -> object:
    """``value`` as the type ``kind``, if it means the same; otherwise ``value`` itself. Coercing twice changes nothing.

    A string is what it would be in JSON without its quotes. Only a 64-bit integer becomes a string: what a float was
    before it was read (1.50 or 1.5) is not known.
    """
    match kind:
        case FeatureType.FLOAT | FeatureType.INT:
            if isinstance(value, str) and len(value) <= _LONGEST and _NUMBER.fullmatch(value):
                return float(value) if any(c in value for c in ".eE") else int(value)
        case FeatureType.BOOL:
            if isinstance(value, str):
                return _WORDS.get(value, value)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value in (0, 1):
                return value == 1
        case FeatureType.STRING:
            if type(value) is int and -(2**63) <= value < 2**63:
                return str(value)
    return value
