"""Paths with dots: which value they find, where they end, and many events at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.schemas.features.paths import MISSING, Absent, find, getter

NAMES = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", ""])
OBJECTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.just([]) | st.just("a.b"),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
EVENTS = st.dictionaries(NAMES, OBJECTS, max_size=3)


@pytest.mark.parametrize(
    ("value", "path", "found"),
    [
        ({"a": 1}, "a", 1),
        ({"a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a.b": {"c": 1}, "a": {"b.c": 2}}, "a.b.c", 1),
        ({"a": {"b.c": 2, "b": {"c": 3}}}, "a.b.c", 2),
        ({"a.b": 7, "a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a": {"b": None}}, "a.b", None),
        ({"a": {"": 1}}, "a.", 1),
    ],
)
def test_a_name_with_dots_is_found_before_the_steps_into_objects(value: Any, path: str, found: object) -> None:
    """The longest name that leads to a value is taken."""
    assert find(value, path) == found
    assert getter((path,)).rows([value]) in ([(found,)], None)
    assert getter((path,)).filled([value], ["absent"]) == [(found,)]


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        ({}, "a", "missing"),
        ([1], "a", "a list, not an object"),
        ({}, "a.b", "there is no 'a'"),
        ({"a": {}}, "a.b", "a has no 'b'"),
        ({"a": None}, "a.b", "a is null, not an object"),
        ({"a": {"b": [{"c": 1}]}}, "a.b.c", "a.b is a list, not an object"),
        ({"a": "text"}, "a.b", "a is a string, not an object"),
        (1, "a.b", "a number, not an object"),
    ],
)
def test_a_path_that_leads_to_nothing_says_where_it_ends(value: Any, path: str, why: str) -> None:
    """Lists and nulls on the way are named; there is no index into a list."""
    assert find(value, path) == Absent(why)
    assert getter((path,)).rows([value]) is None


@given(st.lists(EVENTS, min_size=1, max_size=4), st.lists(NAMES, min_size=1, max_size=3))
def test_many_at_once_are_read_as_one_by_one(events: list[dict[str, Any]], paths: list[str]) -> None:
    """The fast way over a whole batch finds what ``find`` finds in each event, or leaves the batch to ``row``."""
    whole = getter(tuple(paths))
    each = [tuple(find(event, path) for path in paths) for event in events]
    rows = whole.rows(events)
    assert rows is None or rows == each
    none = [MISSING] * len(paths)
    plain = [tuple(MISSING if isinstance(at, Absent) else at for at in row) for row in each]
    assert whole.filled(events, none) == plain


def test_a_batch_of_nested_events_takes_the_fast_way() -> None:
    """Paths through objects, plain names and names with dots are all read without a look at each event."""
    nested = [{"id": i, "p": {"after": {"x": i, "y.z": 2}}} for i in range(3)]
    paths = ("id", "p.after.x", "p.after")
    assert getter(paths).rows(nested) == [(i, i, {"x": i, "y.z": 2}) for i in range(3)]
    assert getter(("a.b", "c.d")).rows([{"a.b": 1, "c.d": 2}]) == [(1, 2)]
