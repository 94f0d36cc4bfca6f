"""Tensors as features: what is read, what is unusable, and the words that say why."""

from __future__ import annotations

import base64
import tracemalloc
from typing import Any

import numpy as np
import pytest

from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns, reason
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec

NAN, INFINITY = float("nan"), float("inf")


def tensor(dtype: str, *shape: int, longest: int = 4, truncate: bool = False, **more: Any) -> Spec:
    about = TensorSpec(DType(dtype), shape, longest if -1 in shape else None, truncate)
    return Spec("x", FeatureType.TENSOR, tensor=about, **more)


def coded(dtype: str, *numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype).tobytes()).decode()


def read(spec: Spec, *values: object) -> Columns:
    return columns([{"x": value} for value in values], [spec])


VECTOR, MATRIX, IDS = tensor("float32", 3), tensor("float32", 2, 3), tensor("int64", -1)
F3 = "a float32 tensor of shape [3]"
F23 = "a float32 tensor of shape [2, 3]"
B32 = "a multiple of 8 bytes up to 32 bytes (4 elements)"
I4 = "an int64 tensor of shape [-1], at most 4 long"


@pytest.mark.parametrize(
    ("spec", "value", "why"),
    [
        (VECTOR, None, "null"),
        (VECTOR, 5, f"a number, not {F3}"),
        (VECTOR, True, f"true, not {F3}"),
        (VECTOR, {"a": 1}, f"an object, not {F3}"),
        (VECTOR, [1, 2], f"a list of shape [2], not {F3}"),
        (VECTOR, [], f"a list of shape [0], not {F3}"),
        (VECTOR, [[1], [2], [3]], f"a list of shape [3, 1], not {F3}"),
        (VECTOR, [1, 2, [3]], f"a list at [2], not a number: it takes {F3}"),
        (VECTOR, [True, 2, 3], f"true at [0], not a number: it takes {F3}"),
        (VECTOR, [0, False, 3], f"false at [1], not a number: it takes {F3}"),
        (VECTOR, [1, "2", 3], f"a string at [1], not a number: it takes {F3}"),
        (VECTOR, [1, None, 3], f"null at [1], not a number: it takes {F3}"),
        (VECTOR, [1, NAN, 3], f"NaN at [1], not finite: it takes {F3}"),
        (VECTOR, [1, 2, -INFINITY], f"-Infinity at [2], not finite: it takes {F3}"),
        (VECTOR, [1, 1e39, 3], f"1e+39 at [1], beyond the range of float32: it takes {F3}"),
        (VECTOR, [10**400, 2, 3], f"a number at [0], beyond the range of float32: it takes {F3}"),
        (
            tensor("float16", 1),
            [65520],
            "65520 at [0], beyond the range of float16 (-65504 to 65504): it takes a float16 tensor of shape [1]",
        ),
        (tensor("uint8", 2), [1, 1.5], "1.5 at [1], not an integer: it takes a uint8 tensor of shape [2]"),
        (
            tensor("uint8", 2),
            [1, 300],
            "300 at [1], beyond the range of uint8 (0 to 255): it takes a uint8 tensor of shape [2]",
        ),
        (
            tensor("int64", 1),
            [2**63],
            "9223372036854775808 at [0], beyond the range of int64: it takes an int64 tensor of shape [1]",
        ),
        (tensor("bool", 2), [True, 1], "1 at [1], not true or false: it takes a bool tensor of shape [2]"),
        (tensor("string", 2), ["a", 1], "1 at [1], not a string: it takes a string tensor of shape [2]"),
        (tensor("string", 2), "ab", "a string, not a string tensor of shape [2]"),
        (MATRIX, [1, 2], f"a list of shape [2], not {F23}"),
        (MATRIX, [[1, 2], [3, 4]], f"a list of shape [2, 2], not {F23}"),
        (MATRIX, [[1, 2, 3], [4, 5]], f"ragged: a list of 2 at [1], beside one of 3: it takes {F23}"),
        (MATRIX, [[1, 2, 3], 7], f"a number at [1], not a list: it takes {F23}"),
        (MATRIX, [[1, 2, 3], [4, 5, None]], f"null at [1, 2], not a number: it takes {F23}"),
        (IDS, [1, 2, 3, 4, 5], f"a list of shape [5], not {I4}"),
        (IDS, coded("i8", 1, 2, 3, 4, 5), f"base64 of 40 bytes (5 elements), not of {B32}: it takes {I4}"),
        (IDS, coded("i4", 1, 2, 3), f"base64 of 12 bytes, not of {B32}: it takes {I4}"),
        (VECTOR, "embedding", f"a string that is not base64: it takes {F3}"),
        (VECTOR, "*" * 16, f"a string that is not base64: it takes {F3}"),
        (VECTOR, "é" * 16, f"a string that is not base64: it takes {F3}"),
        (VECTOR, "AACAPwAAAEAAA\nEBA", f"a string that is not base64: it takes {F3}"),
        (VECTOR, coded("f4", 1, 2), f"base64 of 8 bytes (2 elements), not of 12 bytes (3 elements): it takes {F3}"),
        (VECTOR, coded("f4", 1, 2, NAN), f"NaN at [2], not finite: it takes {F3}"),
        (MATRIX, coded("f4", 1, 2, 3, 4, INFINITY, 6), f"Infinity at [1, 1], not finite: it takes {F23}"),
        (tensor("bool", 3), coded("u1", 0, 1, 2), "the byte 2 at [2], not 0 or 1: it takes a bool tensor of shape [3]"),
        (
            tensor("int8", 2, minimum=-3.0),
            [1, -4],
            "-4 at [1], below the minimum of -3: it takes an int8 tensor of shape [2]",
        ),
        (
            tensor("float32", 1, maximum=0.1),
            coded("f4", 0.2),
            "0.2 at [0], above the maximum of 0.1: it takes a float32 tensor of shape [1]",
        ),
    ],
)
def test_unusable(spec: Spec, value: object, why: str) -> None:
    """A tensor that is not as its spec says is unusable; its reason says what was found, where, and what is right."""
    assert reason(value, spec) == why
    made = read(spec, value)
    assert made.why == {(0, "x"): why} and made.unusable["x"].tolist() == [True]
    assert made.row(0) == {"x": None}


@pytest.mark.parametrize(
    ("spec", "value", "kept"),
    [
        (VECTOR, [1, 2.5, 3.4028235e38], [1.0, 2.5, float(np.finfo(np.float32).max)]),
        (VECTOR, coded("<f4", 1, 2.5, -0.5), [1.0, 2.5, -0.5]),
        (tensor("float16", 2), [65519, 0.5], [65504.0, 0.5]),
        (tensor("float64", 2), [1e300, 2**53], [1e300, 2.0**53]),
        (tensor("float64", 1), coded("<f8", 1e300), [1e300]),
        (tensor("int64", 2), [-(2**63), 3.0], [-(2**63), 3]),
        (tensor("uint8", 2), [255, 0], [255, 0]),
        (tensor("bool", 2), [True, False], [True, False]),
        (tensor("bool", 2), coded("u1", 1, 0), [True, False]),
        (tensor("string", 2), ["a", ""], ["a", ""]),
        (tensor("int16", 2, 1, 2), [[[1, 2]], [[3, 4]]], [[[1, 2]], [[3, 4]]]),
        (tensor("int16", 2, 1, 2), coded("<i2", 1, 2, 3, 4), [[[1, 2]], [[3, 4]]]),
        (tensor("float32", 1, minimum=0.1, maximum=0.1), [0.1], [float(np.float32(0.1))]),
        (IDS, [], []),
        (tensor("int64", -1, 2), [[1, 2]], [[1, 2]]),
        (tensor("int8", 2, -1), [[1], [2]], [[1], [2]]),
        (tensor("int64", -1, truncate=True), [1, 2, 3, 4, "5"], [1, 2, 3, 4]),
        (tensor("int8", 2, -1, longest=1, truncate=True), coded("i1", 1, 2, 3, 4), [[1], [3]]),
        (tensor("string", -1), ["a"], ["a"]),
        (tensor("int8", -1, 3), [], []),
        (tensor("int8", 2, -1, 3), [[], []], [[], []]),
        (tensor("int8", 2, -1, 3), "", [[], []]),
    ],
)
def test_usable(spec: Spec, value: object, kept: object) -> None:
    """A list and base64 give the tensor, in its dtype; what is cut off at max_length is not looked at."""
    made = read(spec, value)
    assert (made.why, made.row(0)) == ({}, {"x": kept}) and reason(value, spec) is None
    assert spec.tensor is not None
    dtype = object if spec.tensor.dtype is DType.STRING else np.dtype(spec.tensor.dtype.value)
    (cell,) = made.values["x"]
    assert cell.dtype == dtype and made.values["x"].dtype == (object if -1 in spec.tensor.shape else dtype)


@pytest.mark.parametrize("good", [[1.0, 2.0, 3.0], coded("f4", 1, 2, 3)], ids=["lists", "base64"])
def test_neighbours_stay_usable(good: object) -> None:
    """Of a batch, only the unusable tensors are marked; they hold zeros, and the others are one writable block."""
    values: list[object] = [good] * 21
    values[3], values[11], values[20] = [1.0, 2.0], None, [1.0, 2.0, None]
    made = read(VECTOR, *values)
    assert [i for i, _ in made.why] == [3, 11, 20]
    assert made.values["x"].shape == (21, 3) and made.values["x"].dtype == np.float32
    assert all(row == ([0, 0, 0] if i in (3, 11, 20) else [1, 2, 3]) for i, row in enumerate(made.values["x"].tolist()))
    assert read(VECTOR, good).values["x"].flags.writeable


def test_neighbours_of_many_unusable_tensors() -> None:
    """A batch with more unusable rows than it is split in at first keeps each usable one."""
    values: list[object] = [[float(i)] * 3 if i % 3 else [1.0, None, 2.0] for i in range(300)]
    made = read(VECTOR, *values)
    assert [i for i, _ in made.why] == list(range(0, 300, 3))
    assert made.values["x"].tolist() == [[float(i) if i % 3 else 0.0] * 3 for i in range(300)]


def test_lists_and_base64_in_one_batch() -> None:
    """Producers that write lists and those that write base64 may share a topic."""
    made = read(IDS, [1, 2], coded("i8", 3), "?", [], [9] * 5)
    assert [row.tolist() for row in made.values["x"]] == [[1, 2], [3], [], [], []]
    assert sorted(made.why) == [(2, "x"), (4, "x")]


@pytest.mark.parametrize("spec", [VECTOR, MATRIX, IDS, tensor("string", 2), tensor("string", -1)])
def test_empty_batch(spec: Spec) -> None:
    """An empty batch of tensors has their dimensions, so that it can be joined with others."""
    assert spec.tensor is not None
    fixed = () if -1 in spec.tensor.shape else spec.tensor.shape
    assert columns([], [spec]).values["x"].shape == (0, *fixed)


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (VECTOR, [[1, 2, 3], None, [4, 5, 6], [7, 8, 9]]),
        (IDS, [[1], None, [2, 3], [4]]),
        (tensor("string", 1), [["a"], None, ["b"], ["c"]]),
    ],
)
def test_take_and_concat(spec: Spec, values: list[object]) -> None:
    """Taken and joined tensors are those of the events read in that order, also where each row has the same length."""
    made, order = read(spec, *values), [3, 0, 1]
    again = read(spec, *[values[i] for i in order])
    for same in (
        made.take(np.array(order, np.intp)),
        Columns.concat([made.take(np.array([3], np.intp)), read(spec), made.take(np.array([0, 1], np.intp))]),
    ):
        assert [same.row(i) for i in range(3)] == [again.row(i) for i in range(3)]
        assert same.why == again.why and same.values["x"].shape == again.values["x"].shape


@pytest.mark.parametrize("value", [[0.5] * 2_000_000, "A" * 8_000_000], ids=["list", "base64"])
def test_a_size_is_checked_before_anything_is_converted(value: object) -> None:
    """A list or a text of millions takes no memory of its own, and its reason is short."""
    tracemalloc.start()
    try:
        (why,) = read(VECTOR, value).why.values()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000 and len(why) < 200
