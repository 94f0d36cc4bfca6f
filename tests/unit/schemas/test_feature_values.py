"""Bounds, coercion, paths and wide numbers of features that are no tensors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns, reason
from failsoft.schemas.features.spec import FeatureType, Spec

FLOAT, INT, BOOL, STRING = list(FeatureType)[:4]


def read(spec: Spec, *values: object) -> Columns:
    return columns([{spec.name: value} for value in values], [spec])


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (FLOAT, "3.5", 3.5),
        (FLOAT, "-1e3", -1000.0),
        (FLOAT, "7", 7.0),
        (INT, "3", 3),
        (INT, "3.0", 3),
        (INT, 3.0, 3),
        (INT, "-9223372036854775808", -(2**63)),
        (INT, "9007199254740993", 2**53 + 1),
        (BOOL, "true", True),
        (BOOL, "false", False),
        (BOOL, 1, True),
        (BOOL, 0.0, False),
        (STRING, 1234, "1234"),
        (STRING, -1, "-1"),
    ],
)
def test_coerced(kind: FeatureType, value: object, found: object) -> None:
    """With coerce, a value of another type that means the same is that value, also beside values of the right type."""
    spec = Spec("x", kind, coerce=True)
    made = columns([{"x": found}, {"x": value}, {}], [spec])
    assert made.row(1) == {"x": found} and type(made.row(1)["x"]) is type(found)
    assert list(made.why) == [(2, "x")] and reason(value, spec) is None
    assert columns([{"x": value, "y": 1}], [spec, Spec("y", INT)]).row(0)["x"] == found


@pytest.mark.parametrize("company", [(), (Spec("y", INT),)], ids=["alone", "in company"])
@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        *[(FLOAT, text, f"{text!r}, not a number") for text in ("", " ", "50,5", "1,050.50", " 1", "1 ", "1\n", "+1")],
        *[(FLOAT, text, f"{text!r}, not a number") for text in ("01", ".5", "5.", "1e", "0x1", "1_0", "NaN", "٣")],
        (FLOAT, "9" * 500, f"'{'9' * 39}…', not a number"),
        (FLOAT, True, "true, not a number"),
        (FLOAT, "1e999", "not finite"),
        (FLOAT, [1], "a list, not a number"),
        (INT, "3.5", "3.5, not an integer"),
        (INT, 3.5, "3.5, not an integer"),
        (INT, "9223372036854775808", "beyond the range of int64"),
        (INT, 1e300, "beyond the range of int64"),
        (INT, True, "true, not a number"),
        (BOOL, "True", "'True', not true or false"),
        (BOOL, "1", "'1', not true or false"),
        (BOOL, 2, "a number, not true or false"),
        (STRING, 1.5, "a number, not a string"),
        (STRING, True, "true, not a string"),
        (STRING, 2**63, "a number, not a string"),
        (STRING, None, "null"),
    ],
)
def test_not_coerced(kind: FeatureType, value: object, why: str, company: tuple[Spec, ...]) -> None:
    """What could mean something else is not converted."""
    spec = Spec("x", kind, coerce=True)
    assert columns([{"x": value, "y": 1}], [spec, *company]).why == {(0, "x"): why}
    assert reason(value, spec) == why


def test_a_number_may_be_a_category() -> None:
    """A number becomes a string before it is looked up: a ZIP code of a producer that writes numbers is known."""
    made = read(Spec("zip", STRING, frozenset({"90210"}), coerce=True), 90210, 10001)
    assert made.row(0) == {"zip": "90210"} and made.why == {(1, "zip"): "unseen category '10001'"}


@pytest.mark.parametrize("company", [(), (Spec("y", INT),)], ids=["alone", "in company"])
@pytest.mark.parametrize(
    ("spec", "value", "why"),
    [
        (Spec("x", FLOAT, minimum=0.0), -3, "-3 is below the minimum of 0"),
        (Spec("x", FLOAT, minimum=0.0), -0.5, "-0.5 is below the minimum of 0"),
        (Spec("x", FLOAT, minimum=0.0, maximum=150.0), 151.0, "151 is above the maximum of 150"),
        (Spec("x", FLOAT, minimum=0.0), 1e39, None),
        (Spec("x", FLOAT, minimum=0.0), 0, None),
        (Spec("x", FLOAT, maximum=0.1), 0.1, None),
        (Spec("x", FLOAT, maximum=0.1, coerce=True), "0.2", "0.2 is above the maximum of 0.1"),
        (Spec("x", FLOAT, minimum=0.0), None, "null"),
        (Spec("x", INT, minimum=0.5), 0, "0 is below the minimum of 0.5"),
        (Spec("x", INT, minimum=0.5), 1, None),
        (Spec("x", INT, maximum=2.0**53), 2**53 + 1, "9007199254740993 is above the maximum of 9007199254740992"),
        (Spec("x", INT, minimum=-1e300, maximum=1e300), 2**63 - 1, None),
    ],
)
def test_bounds(spec: Spec, value: object, why: str | None, company: tuple[Spec, ...]) -> None:
    """A number outside its bounds is unusable with a reason of its own; a bound itself is inside, and integers compare
    exactly.
    """
    made = columns([{"x": value, "y": 1}, {"x": 1, "y": 1}], [spec, *company])
    assert made.why.get((0, "x")) == why == reason(value, spec)
    assert (made.values["x"][0] == 0) or why is None


@pytest.mark.parametrize("kind", [FLOAT, INT])
def test_paths(kind: FeatureType) -> None:
    """A field is a path with dots; a name that has dots itself is found first; a reason says where the path ends."""
    spec = Spec("amount", kind, field="payload.after.amount")
    events: list[dict[str, object]] = [
        {"payload": {"after": {"amount": 1}}},
        {"payload": {"after": {"amount": 0}}, "payload.after.amount": 2},
        {"payload": {"after": {"amount": 0}, "after.amount": 3}},
        {"payload": {"after": None}},
        {"payload": [1]},
        {"payload": {"after": {}}},
        {"payload": {"after": {"amount": "x"}}},
        {"amount": 4},
    ]
    made = columns(events, [spec])
    assert made.values["amount"].tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    at = " (field 'payload.after.amount')"
    assert [made.why[i, "amount"] for i in range(3, 8)] == [
        f"payload.after is null, not an object{at}",
        f"payload is a list, not an object{at}",
        f"payload.after has no 'amount'{at}",
        f"a string, not a number{at}",
        f"there is no 'payload'{at}",
    ]


def test_two_features_may_have_one_field() -> None:
    """A field that two features share is read for both."""
    made = columns([{"a": 1}], [Spec("x", FLOAT, field="a"), Spec("y", FLOAT, field="a"), Spec("z", INT, field="b.c")])
    assert made.row(0) == {"x": 1.0, "y": 1.0, "z": None}


@pytest.mark.parametrize("company", [(), (Spec("y", INT),)], ids=["matrix", "columns"])
def test_wide(company: tuple[Spec, ...]) -> None:
    """Floats that float32 would make infinite are usable and marked; the marks survive take and concat."""
    values = [1.0, 1e39, None, -3.5e38, json.loads("3.4028235e38"), 1e300]
    made = columns([{"x": value, "y": 1} for value in values], [Spec("x", FLOAT), *company])
    assert made.wide["x"].tolist() == [False, True, False, True, False, True] and list(made.why) == [(2, "x")]
    assert made.values["x"].tolist() == [1.0, 1e39, 0.0, -3.5e38, 3.4028235e38, 1e300]
    taken = made.take(np.array([5, 0], np.intp))
    assert taken.wide["x"].tolist() == [True, False]
    narrow = made.take(np.array([0, 2], np.intp))
    assert narrow.wide == {}
    assert Columns.concat([narrow, taken]).wide["x"].tolist() == [False, False, True, False]
    assert Columns.concat([narrow, narrow]).wide == {}
