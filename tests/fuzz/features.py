"""A target for features: any JSON value of features of every type, held against a simple rule for each value."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from failsoft.schemas import wire
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.paths import find
from failsoft.schemas.features.reading import columns, reason
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec
from tests.fuzz.target import Target


def tensor(name: str, dtype: str, *shape: int, truncate: bool = False, **more: Any) -> Spec:
    """A tensor feature; with a -1 in its shape, it is at most 4 long."""
    longest = 4 if -1 in shape else None
    return Spec(name, FeatureType.TENSOR, tensor=TensorSpec(DType(dtype), shape, longest, truncate), **more)


SPECS = (
    Spec("f", FeatureType.FLOAT, minimum=-5.5, maximum=1e300),
    Spec("cf", FeatureType.FLOAT, coerce=True),
    Spec("i", FeatureType.INT, maximum=9007199254740992.0),
    Spec("ci", FeatureType.INT, coerce=True, minimum=-3.5),
    Spec("b", FeatureType.BOOL),
    Spec("cb", FeatureType.BOOL, coerce=True),
    Spec("s", FeatureType.STRING, frozenset({"a", "7"})),
    Spec("cs", FeatureType.STRING, frozenset({"a", "7"}), coerce=True),
    Spec("deep", FeatureType.FLOAT, field="p.q.r"),
    tensor("t", "float32", 3),
    tensor("h", "float16", 2, 2, minimum=-0.1),
    tensor("d", "float64", 1, field="p.d"),
    tensor("l", "int64", -1, truncate=True),
    tensor("u", "uint8", -1, 2, maximum=200),
    tensor("j", "int8", 2, -1, truncate=True),
    tensor("k", "bool", 3),
    tensor("w", "string", -1),
)
"""Features of every type, every kind of shape, with bounds, coercion and paths."""


def features(data: bytes) -> bool:
    """Each cell has the value that a simple rule gives, or the rule gives none and the cell has a reason.

    A batch is its rows: the same event between two others, read twice, taken and joined gives the same cells.
    """
    try:
        event = wire.loads(data, 200_000)
    except wire.Malformed:
        return False
    if not isinstance(event, dict):
        return False
    alone, batch = columns([event], SPECS), columns([GOOD, event, {}, event], SPECS)
    rows = np.array([1, 3], np.intp)
    doubled = Columns.concat([batch.take(rows[:1]), alone])
    for spec in SPECS:
        value = find(event, spec.path)
        expected, why = right(value, spec), reason(value, spec)
        assert (expected is None) == (why is not None), f"{spec.name}: {why}"
        for made, at in ((alone, [0]), (batch, rows), (doubled, [0, 1])):
            for i in at:
                assert made.why.get((i, spec.name)) == why
                assert plain(made.row(i)[spec.name]) == plain(expected)
                wide = made.wide.get(spec.name)
                assert (wide is not None and wide[i]) == (spec.type is FeatureType.FLOAT and beyond_float32(expected))
        assert why is None or len(why) < 300
        assert batch.row(0)[spec.name] is not None and batch.row(2)[spec.name] is None
    return not alone.why


def plain(value: Any) -> Any:
    """A value that can be compared with its type: 1, 1.0 and true are three."""
    return repr(value)


def beyond_float32(value: Any) -> bool:
    with np.errstate(over="ignore"):
        return value is not None and not np.isfinite(np.float32(value))


def right(value: Any, spec: Spec) -> Any:
    """The usable value of a cell, as ``Columns.row`` has it, or None."""
    if spec.tensor is not None:
        return _tensor(value, spec, spec.tensor)
    if spec.coerce:
        if spec.type in (FeatureType.FLOAT, FeatureType.INT) and type(value) is str:
            value = json.loads(value) if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", value, re.A) else None
        elif spec.type is FeatureType.BOOL:
            words: list[tuple[Any, bool]] = [("true", True), ("false", False), (1, True), (0, False)]
            value = next((is_ for word, is_ in words if type(value) is not bool and value == word), value)
        elif spec.type is FeatureType.STRING and type(value) is int and -(2**63) <= value < 2**63:
            value = str(value)
    match spec.type:
        case FeatureType.BOOL:
            return value if type(value) is bool else None
        case FeatureType.STRING:
            return value if type(value) is str and value in (spec.categories or ()) else None
    found = _number(value, "float64" if spec.type is FeatureType.FLOAT else "int64")
    return found if found is None or _within(found, spec) else None


def _number(value: Any, dtype: str) -> Any:
    if type(value) not in (int, float) or not -1.8e308 < value < 1.8e308:
        return None
    if not dtype.startswith("float"):
        bounds = np.iinfo(dtype)
        return int(value) if value == int(value) and bounds.min <= value <= bounds.max else None
    with np.errstate(over="ignore"):
        found = np.dtype(dtype).type(value).item()
    return found if math.isfinite(found) else None


def _within(found: Any, spec: Spec, dtype: str = "float64") -> bool:
    limits = (-math.inf if spec.minimum is None else spec.minimum, math.inf if spec.maximum is None else spec.maximum)
    if type(found) is float:
        with np.errstate(over="ignore"):
            limits = (np.dtype(dtype).type(limits[0]).item(), np.dtype(dtype).type(limits[1]).item())
    return bool(limits[0] <= found <= limits[1])


def _tensor(value: Any, spec: Spec, one: TensorSpec) -> Any:
    if type(value) is str and one.dtype is not DType.STRING:
        value = _nested(value, one)
    if type(value) is not list:
        return None
    shape = [len(value)] + ([len(value[0])] if len(one.shape) == 2 and value and type(value[0]) is list else [])
    if len(shape) < len(one.shape):
        shape += list(one.shape[len(shape) :])
    if any(n not in (-1, found) for n, found in zip(one.shape, shape, strict=True)):
        return None
    if len(shape) == 2 and any(type(row) is not list or len(row) != shape[1] for row in value[: one.max_length]):
        return None
    if -1 in one.shape and shape[one.shape.index(-1)] > (one.max_length or 0):
        if not one.truncate:
            return None
        cut = slice(one.max_length)
        value = value[cut] if one.shape[0] == -1 else [row[cut] for row in value]
    kept = (
        [[_element(x, spec, one) for x in row] for row in value]
        if len(shape) == 2
        else [_element(x, spec, one) for x in value]
    )
    return None if None in (itertools.chain(*kept) if len(shape) == 2 else kept) else kept


def _element(value: Any, spec: Spec, one: TensorSpec) -> Any:
    if one.dtype in (DType.STRING, DType.BOOL):
        return value if type(value) is (str if one.dtype is DType.STRING else bool) else None
    found = _number(value, one.dtype)
    return found if found is not None and _within(found, spec, one.dtype) else None


def _nested(text: str, one: TensorSpec) -> Any:
    """Base64 as the list that it stands for; None if it is something else."""
    if not re.fullmatch(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", text):
        return None
    raw = base64.b64decode(text)
    width = np.dtype(one.dtype.value).itemsize
    if len(raw) % width:
        return None
    flat = np.frombuffer(raw, f"<{np.dtype(one.dtype.value).str[1:]}" if one.dtype is not DType.BOOL else "u1").tolist()
    if one.dtype is DType.BOOL:
        flat = [{0: False, 1: True}.get(x) for x in flat]
    if len(one.shape) == 1:
        return flat
    rows = len(flat) // one.shape[1] if one.shape[0] == -1 else one.shape[0]
    if len(flat) % rows if rows else flat:
        return None
    return [flat[i * len(flat) // rows : (i + 1) * len(flat) // rows] for i in range(rows)]


def _bytes(dtype: str, *numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype).tobytes()).decode()


GOOD: dict[str, Any] = {
    "f": 1.5, "cf": "2.5", "i": 3.0, "ci": "-3", "b": True, "cb": 0, "s": "a", "cs": 7,
    "p": {"q": {"r": 1e39}, "d": [2]}, "t": [1, 0.5, -0.0], "h": [[1, 0.1], [-0.1, 65519]], "l": [1, 2, 3, 4, 5],
    "u": [[1, 200]], "j": [[1, 2], [3, 4]], "k": [True, False, True], "w": ["a", ""],
}  # fmt: skip
CODED: dict[str, Any] = {
    **GOOD, "p": {"q": {"r": -1}, "d": _bytes("f8", 1e300)}, "t": _bytes("f4", 1, 2, 3.5),
    "h": _bytes("f2", 1, 2, 3, 4), "l": _bytes("i8", 1, 2, 3, 4, 5), "u": _bytes("u1", 1, 2),
    "j": _bytes("i1", *range(10)), "k": _bytes("u1", 0, 1, 1), "p.q.r": 7, "cb": "true", "ci": "1e2", "w": [],
}  # fmt: skip


def _words() -> Iterator[bytes]:
    yield from (b'"1e999"', b'"0x1"', b'"01"', b'" 1"', b'"1,5"', b'"1.0"', b'"true"', b"1.0", b"3.4028235e38", b"-5.5")
    yield from (
        b"[[]]",
        b"[1, 2]",
        b"[[1, 2], [3]]",
        b"[0, 1, true]",
        b"[1, null, 3]",
        b'"p.q"',
        b'"p"',
        b"300",
        b"-0.1",
    )
    yield from (
        f'"{_bytes(dtype, *n)}"'.encode() for dtype, n in (("f4", (1, math.nan, 2)), ("u1", (2, 1, 0)), ("i8", ()))
    )
    yield from (b'"AAAA"', b'"AAA="', b'"AB=="', b'"===="', b'"A-_A"', b'"AAAA\\n"', b"[" + b"1," * 5000 + b"1]")


TARGETS = (Target("features", features, tuple(json.dumps(one).encode() for one in (GOOD, CODED)), tuple(_words())),)
