"""JSON: refused values, and the encoding of whole columns."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from failsoft.schemas import wire


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (None, "tombstone"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"NaN", "not JSON"),
        (b'{"a": Infinity}', "not JSON"),
        (b"1e999", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b'"\\ud800"', "not JSON"),
        (b"{} {}", "not JSON"),
        (b'{"a": "' + b"x" * 100 + b'"}', "109 bytes, over the limit of 100"),
        (b"[" * 5 + b"]" * 5, "nested deeper than 4"),
    ],
)
def test_invalid_json_and_values_over_a_limit_are_malformed(raw: bytes | None, why: str) -> None:
    """The error says what is wrong without quoting the value; a batch with such a value must be read one by one."""
    with pytest.raises(wire.Malformed, match=why):
        wire.loads(raw, 100, 4)
    together = wire.loads_all([b"{}", raw], 100)
    assert together is None or not wire.all_shallow([b"{}", raw or b""], 0, 4)


def test_the_last_of_duplicate_keys_counts() -> None:
    """Of duplicate keys the last one counts, as in orjson, Python's json and Jackson."""
    assert wire.loads(b'{"a": 1, "a": 2}', 100) == {"a": 2}


def test_an_integer_past_64_bits_becomes_a_float() -> None:
    """An integer that does not fit into 64 bits is read as a float."""
    assert wire.loads(b"18446744073709551616", 100) == 2.0**64


def test_values_at_the_limits_pass() -> None:
    """A value exactly at a limit is accepted."""
    assert wire.loads(b"[[1]]", 5, 2) == [[1]]
    assert wire.loads_all([b"[[1]]", b"2"], 5) == [[[1]], 2]
    assert wire.loads_all([], 5) == []


@pytest.mark.parametrize(
    ("raw", "deep"),
    [
        (b"[[[1]]]", True),
        (b"[[1],[1],[1]]", False),
        (b'["[[[[[["]', False),
        (b'["\\"[[[[", 1]', False),
        (b'["\\\\", [[1]]]', True),
        (b'{"a":{"b":{}}}', True),
        (b'["[[[[[[[', False),
        (b"]]]][[[", False),
    ],
)
def test_depth_counts_brackets_outside_of_strings(raw: bytes, deep: bool) -> None:
    """Depth counts nested brackets only; brackets inside strings, also behind escaped quotes, are text."""
    assert wire.too_deep(raw, 2) is deep


def test_extreme_nesting_is_refused_before_parsing() -> None:
    """A hundred thousand levels are malformed and cause no recursion error."""
    with pytest.raises(wire.Malformed, match="deeper"):
        wire.loads(b"[" * 100_000, 1_000_000)


@pytest.mark.parametrize(
    "column",
    [
        [],
        ["a"],
        ["", ""],
        ['ends in a quote and a comma",', "next"],
        ['","', '"', "\\", '\\",', ",", '",\\'],
        ["ü€😀", "\n\t\x00", "a,b"],
    ],
)
def test_a_column_of_strings_is_encoded_like_each_string(column: list[str]) -> None:
    """One call for the column gives the same JSON as one call per string."""
    assert [json.loads(b'"%b"' % s) for s in wire.strings(column)] == column
    assert wire.strings(column) == [wire.dumps(s)[1:-1] for s in column]


def test_numbers_have_the_fewest_digits() -> None:
    """A number has the fewest digits that convert back to it, in its own precision; NaN is null."""
    assert wire.numbers(np.array([0.1, 1.0, float("nan")], np.float32)) == [b"0.1", b"1.0", b"null"]
    assert wire.numbers(np.array([0.1, 1e300])) == [b"0.1", b"1e+300"]
    assert wire.numbers(np.array([1, -2])) == [b"1", b"-2"]
    assert wire.numbers(np.array([], np.float32)) == []
    assert wire.numbers(np.arange(6, dtype=np.float32)[::2]) == [b"0.0", b"2.0", b"4.0"]


def test_a_matrix_gives_one_array_per_row() -> None:
    """A matrix gives one JSON array per row, whatever its memory layout."""
    rows = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    assert wire.values(rows) == [b"[0.25,0.75]", b"[1.0,0.0]"]
    assert wire.values(np.asfortranarray(rows)) == wire.values(rows)
    assert wire.values(rows[:0]) == [] and wire.values(rows[:, :1]) == [b"[0.25]", b"[1.0]"]


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 2), (2, 3, 2, 2), (3, 0), (3, 0, 2), (3, 2, 0), (0, 2, 2)])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_a_tensor_gives_one_value_per_row(shape: tuple[int, ...], kind: type) -> None:
    """A tensor of any rank, also with an empty dimension, gives the JSON of each row."""
    tensor: np.ndarray[Any, Any] = (np.arange(math.prod(shape)) % 7).astype(kind).reshape(shape)
    assert [json.loads(row) for row in wire.values(tensor)] == tensor.tolist() == wire.plain(tensor)


def test_a_list_gives_one_value_per_entry() -> None:
    """A list of JSON values gives the JSON of each. What is not finite becomes null, in an array as in a list."""
    assert wire.values(["a],[", None, {"b": [1]}]) == [b'"a],["', b"null", b'{"b":[1]}']
    assert wire.values([float("nan")]) == wire.values(np.array([np.inf])) == [b"null"]
    assert wire.plain(np.array([[np.nan, 0.1]], np.float32)) == [[None, 0.1]]


def test_lines_are_ndjson() -> None:
    """Each value is one line, and the last line is ended too."""
    assert wire.lines([{"a": 1}, [2]]) == b'{"a":1}\n[2]\n'


def test_one_deep_value_among_many_shallow_ones_is_found() -> None:
    """A deep value is found among any number of shallow ones; brackets in strings do not count."""
    flat = [b'{"a":{"b":1}}'] * 1000
    assert wire.all_shallow(flat, 2, 4)
    assert wire.all_shallow([*flat, b'{"a":{"b":"[[[[[{{{{{"}}'], 2, 4)
    assert wire.all_shallow([*flat, b'{"a":{"b":[[1]]}}'], 2, 4)
    assert not wire.all_shallow([*flat, b'{"a":{"b":[[[1]]]}}'], 2, 4)
    assert not wire.all_shallow([b'{"a":{"b":[[[1]]]}}', *flat], 2, 4)
    assert wire.all_shallow([], 2, 4)


@pytest.mark.parametrize("size", [10, 3_000, 90_000])
def test_one_deep_value_among_many_large_ones_is_found(size: int) -> None:
    """Large values are checked a part at a time, and each of them is in some part. A list a value is not deep."""
    flat = [b'{"a":{"b":[%s]}}' % (b"1," * (size // 2) + b"1")] * 100
    assert wire.all_shallow(flat, 2, 4)
    for at in (0, 24, 50, 99):
        values = [*flat]
        values[at] = values[at].replace(b"[1", b"[[[1").replace(b"1]", b"1]]]")
        assert not wire.all_shallow(values, 2, 4)
