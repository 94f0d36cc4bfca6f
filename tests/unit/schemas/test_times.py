"""Event times: ISO 8601 and epoch numbers, one by one and in columns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.schemas.times import time, times, unreadable

TIMES: st.SearchStrategy[Any] = st.one_of(
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.sampled_from([0, 10**11 - 1, 10**11, 10**14, 10**17, 2**63, 1e11, 99999999999.99999, True, None, [], "", "7"]),
    st.integers(0, 10**19).map(str),
    st.datetimes().map(str),
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1790000000, "2026-09-21T14:13:20Z"),
        (1790000000123, "2026-09-21T14:13:20.123Z"),
        (1790000000123456, "2026-09-21T14:13:20.123456Z"),
        (1790000000123456789, "2026-09-21T14:13:20.123456789Z"),
        (1790000000.25, "2026-09-21T14:13:20.250000Z"),
        (1790000000123.0, "2026-09-21T14:13:20.123000Z"),
        (1790000000123.5, "2026-09-21T14:13:20.123500Z"),
        (1.79e18, "2026-09-21T14:13:20.000000000Z"),
        ("1790000000123", "2026-09-21T14:13:20.123Z"),
        ("1790000000.25", "2026-09-21T14:13:20.250000Z"),
        ("20260921", "2026-09-21T00:00:00Z"),
        # the boundaries of the units
        (10**11 - 1, "5138-11-16T09:46:39Z"),
        (10**11, "1973-03-03T09:46:40.000Z"),
        (10**14 - 1, "5138-11-16T09:46:39.999Z"),
        (10**14, "1973-03-03T09:46:40.000000Z"),
        (10**17, "1973-03-03T09:46:40.000000000Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_an_epoch_number_has_the_unit_of_its_size(given: object, found: str) -> None:
    """Seconds, milliseconds, microseconds and nanoseconds keep their decimals, in a column too."""
    assert time(given) == found
    assert list(times([given, given])) == [found, found]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("01/02/2026", "'01/02/2026' is neither ISO 8601 nor an epoch number"),
        ("", "'' is neither"),
        ("1712123112345678901234", "is neither"),
        ("x" * 1000, "…' is neither"),
        (-1, "-1 is no epoch time"),
        (2**63, "9223372036854775808 is no epoch time"),
        (float("inf"), "inf is no epoch time"),
        (True, "true is not a time"),
        ({"seconds": 1}, "an object is not a time"),
    ],
)
def test_what_is_not_a_time_is_said(given: object, why: str) -> None:
    """No day is guessed from 01/02/2026, which is in January or February, and a boolean is no number."""
    assert time(given) is None and why in unreadable(given) and len(unreadable(given)) < 100
    assert list(times([given])) == [None]


@given(st.lists(TIMES, min_size=1, max_size=4))
def test_a_column_is_read_as_its_values_are(column: list[object]) -> None:
    """The fast ways over whole columns give what each value alone gives."""
    assert list(times(column)) == [time(value) for value in column]


def test_a_nan_among_numbers_is_no_time() -> None:
    """Avro and Protobuf have NaN in a column of floats, where neither ``min`` nor ``max`` finds it."""
    given = [1.0, float("nan"), 2.5]
    assert list(times(given)) == [time(value) for value in given] and time(given[1]) is None
