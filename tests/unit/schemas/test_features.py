"""Feature columns: usable and unusable values, and the reasons."""

from __future__ import annotations

import json

import numpy as np
import pytest

from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns, reason
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.features.words import QUOTED

FLOAT, INT, BOOL, STRING = (Spec(t.value, t) for t in list(FeatureType)[:4])
COLOUR = Spec("colour", FeatureType.STRING, frozenset({"red", "blue"}))


def read(spec: Spec, *values: object) -> Columns:
    return columns([{spec.name: value} for value in values], [spec])


@pytest.mark.parametrize(
    ("spec", "value", "why"),
    [
        (FLOAT, None, "null"),
        (FLOAT, True, "true, not a number"),
        (FLOAT, "1.5", "a string, not a number"),
        (FLOAT, [1.5], "a list, not a number"),
        (FLOAT, {"x": 1}, "an object, not a number"),
        (FLOAT, float("inf"), "not finite"),
        (FLOAT, float("nan"), "not finite"),
        (FLOAT, 10**400, "beyond the range of float64"),
        (INT, 1.5, "1.5, not an integer"),
        (INT, False, "false, not a number"),
        (INT, 2**63, "beyond the range of int64"),
        (INT, 1e300, "beyond the range of int64"),
        (INT, float("nan"), "not finite"),
        (BOOL, 1, "a number, not true or false"),
        (BOOL, "true", "a string, not true or false"),
        (STRING, 7, "a number, not a string"),
        (STRING, None, "null"),
        (COLOUR, "green", "unseen category 'green'"),
        (COLOUR, ["red"], "a list, not a string"),
    ],
)
@pytest.mark.parametrize("company", [(), (FLOAT, INT, BOOL, STRING)], ids=["alone", "in company"])
def test_unusable(spec: Spec, value: object, why: str, company: tuple[Spec, ...]) -> None:
    """A value of another type, range or category is unusable, has a reason, and changes no other cell."""
    good = {"float": 1.5, "int": 2, "bool": True, "string": "s", "colour": "red"}
    specs = [*(s for s in company if s.name != spec.name), spec]
    made = columns([good, {**good, spec.name: value}, good], specs)
    assert made.why == {(1, spec.name): why}
    assert {name: mask.tolist() for name, mask in made.unusable.items()} == {spec.name: [False, True, False]}
    for other in specs:
        placeholder = {"float": 0.0, "int": 0, "bool": False, "string": "", "colour": ""}[other.name]
        middle = placeholder if other is spec else good[other.name]
        assert made.values[other.name].tolist() == [good[other.name], middle, good[other.name]]
    assert reason(value, spec) == why


@pytest.mark.parametrize(
    ("spec", "given", "kept", "dtype"),
    [
        (FLOAT, [1, 2.5, -1.7e308, 10**300], [1.0, 2.5, -1.7e308, 1e300], np.float64),
        (INT, [1, -(2**63), 2**63 - 1], [1, -(2**63), 2**63 - 1], np.int64),
        (INT, [1, 2.0, 2**53 + 1], [1, 2, 2**53 + 1], np.int64),
        (BOOL, [True, False], [True, False], np.bool_),
        (STRING, ["", "€", "x" * 100], ["", "€", "x" * 100], np.object_),
        (COLOUR, ["red", "blue"], ["red", "blue"], np.object_),
    ],
)
def test_usable(spec: Spec, given: list[object], kept: list[object], dtype: type) -> None:
    """Usable values are unchanged, in a column whose dtype matches the spec's type."""
    made = read(spec, *given)
    assert made.values[spec.name].tolist() == kept
    assert made.values[spec.name].dtype == dtype
    assert (made.unusable, made.why) == ({}, {})


def test_missing_keys() -> None:
    """A key that an event lacks is missing in that row, whatever the other rows hold."""
    made = columns([{"float": 1.0}, {"string": "s", "int": 3}, {}], [FLOAT, INT, STRING])
    assert made.why == {
        (0, "int"): "missing",
        (0, "string"): "missing",
        (1, "float"): "missing",
        (2, "float"): "missing",
        (2, "int"): "missing",
        (2, "string"): "missing",
    }
    assert made.row(1) == {"float": None, "int": 3, "string": "s"}


def test_parsed_overflow() -> None:
    """A JSON number too large for a double becomes infinity and is therefore unusable."""
    assert read(FLOAT, json.loads("1e999")).why == {(0, "float"): "not finite"}


def test_unused_keys_are_ignored() -> None:
    """Keys of an event that no spec names are ignored."""
    made = columns([{"float": 1.0, "more": object()}], [FLOAT])
    assert list(made.values) == ["float"] and not made.why


def test_why_is_bounded() -> None:
    """A reason quotes only the beginning of a value, so that no payload reaches a header or a log."""
    (why,) = read(COLOUR, "x" * 10_000).why.values()
    assert len(why) < QUOTED + 30 and why.endswith("…'")


def test_matrix_and_views() -> None:
    """When every spec is a float, the values are one C-ordered matrix and the columns are views of it."""
    specs = [Spec("a", FeatureType.FLOAT), Spec("b", FeatureType.FLOAT)]
    made = columns([{"a": 1, "b": 2.5}, {"a": 3}, {"a": "x", "b": 4}], specs)
    assert made.matrix is not None and made.matrix.flags.c_contiguous
    assert made.matrix.tolist() == [[1.0, 2.5], [3.0, 0.0], [0.0, 4.0]]
    assert all(np.shares_memory(column, made.matrix) for column in made.values.values())
    assert made.why == {(1, "b"): "missing", (2, "a"): "a string, not a number"}
    assert columns([{"a": 1.0, "int": 1}], [specs[0], INT]).matrix is None


@pytest.mark.parametrize("specs", [(FLOAT,), (FLOAT, COLOUR, INT)])
def test_take(specs: tuple[Spec, ...]) -> None:
    """Taken rows are in the given order and keep their values, masks and reasons under their new indices."""
    events = [{"float": 0.0, "colour": "red", "int": 0}, {"colour": "mauve"}, {"float": 2.0, "int": 2}, {"float": 3.0}]
    order = [3, 1, 0]
    taken = columns(events, specs).take(np.array(order, dtype=np.intp))
    again = columns([events[i] for i in order], specs)
    assert taken.size == 3 and taken.why == again.why
    assert [taken.row(i) for i in range(3)] == [again.row(i) for i in range(3)]
    assert (taken.matrix is None) == (again.matrix is None)
    assert {n: m.tolist() for n, m in taken.unusable.items()} == {n: m.tolist() for n, m in again.unusable.items()}


def test_take_drops_masks_without_an_unusable_row() -> None:
    """A mask without an unusable row among those taken is dropped, so that no imputation is tried for it."""
    assert read(FLOAT, 1.0, None).take(np.array([0], dtype=np.intp)).unusable == {}


@pytest.mark.parametrize("specs", [(FLOAT,), (FLOAT, COLOUR, INT)])
def test_concat(specs: tuple[Spec, ...]) -> None:
    """Joined columns are those of one batch: values, masks, and reasons under their new indices."""
    events = [{"float": 0.0, "colour": "red", "int": 0}, {"colour": "mauve"}, {"float": 2.0, "int": 2}, {"float": 3.0}]
    parts = [columns(part, specs) for part in (events[:1], [], events[1:3], events[3:])]
    joined, whole = Columns.concat(parts), columns(events, specs)
    assert joined.size == 4 and joined.why == whole.why
    assert [joined.row(i) for i in range(4)] == [whole.row(i) for i in range(4)]
    assert {n: c.dtype for n, c in joined.values.items()} == {n: c.dtype for n, c in whole.values.items()}
    assert (joined.matrix is None) == (whole.matrix is None)
    assert {n: m.tolist() for n, m in joined.unusable.items()} == {n: m.tolist() for n, m in whole.unusable.items()}


@pytest.mark.parametrize("specs", [[], [(FLOAT,), (INT,)]])
def test_only_columns_of_the_same_specs_can_be_joined(specs: list[tuple[Spec, ...]]) -> None:
    """A row of another model's features must not run on this one."""
    with pytest.raises(ValueError, match="same specs"):
        Columns.concat([columns([{}], each) for each in specs])


@pytest.mark.parametrize("specs", [(FLOAT,), (FLOAT, COLOUR), ()])
def test_empty_batch(specs: tuple[Spec, ...]) -> None:
    """An empty batch gives empty columns."""
    made = columns([], specs)
    assert made.size == 0 and [len(column) for column in made.values.values()] == [0] * len(specs)
