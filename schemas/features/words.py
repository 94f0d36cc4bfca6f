"""Words for values in the reasons why a cell is unusable."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from failsoft.schemas.features.spec import Spec, TensorSpec

# Characters of a value that a message quotes: enough to recognise it, too few to fill a header or a log.
QUOTED = 40


def kind(value: object) -> str:
    """The type of ``value`` in words: JSON's, or bytes."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case Mapping():
            return "an object"
        case bytes():
            return "bytes"
    return f"a {type(value).__name__}"


def quote(value: str) -> str:
    """The beginning of a string, in quotes."""
    return repr(value if len(value) <= QUOTED else value[: QUOTED - 1] + "…")


def show(value: object) -> str:
    """A number as JSON has it, without a needless ``.0``; another value by its type."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        return kind(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 2**64 else "a number"  # a longer one would fill the message
    if math.isfinite(value):
        return str(value).removesuffix(".0")
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def with_field(why: str, spec: Spec) -> str:
    """The reason, and the path in the event if the feature has another name there."""
    return why if spec.path == spec.name else f"{why} (field {spec.path!r})"


def wanted(tensor: TensorSpec) -> str:
    """What a tensor's value must be, such as ``a float32 tensor of shape [128]``."""
    article = "an" if tensor.dtype.startswith("int") else "a"
    limit = "" if tensor.max_length is None else f", at most {tensor.max_length} long"
    return f"{article} {tensor.dtype} tensor of shape {list(tensor.shape)}{limit}"
