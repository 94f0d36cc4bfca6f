"""Durations: text to seconds."""

from __future__ import annotations

import pytest

from failsoft.schemas.config.duration import seconds


@pytest.mark.parametrize(
    ("text", "found"),
    [("200ms", 0.2), ("5s", 5), ("1.5m", 90), ("1h", 3600), ("7d", 604_800), ("036s", 36), ("36500d", 36_500 * 86_400)],
)
def test_a_number_and_a_unit_are_seconds(text: str, found: float) -> None:
    """A duration is a number and a unit: milliseconds, seconds, minutes, hours or days."""
    assert seconds(text) == pytest.approx(found)


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "0s", "-1s", "5 s", "5S", "1h30m", "1e3s", ".5s", "5s\n", "５s", "9" * 400 + "s", "36501d", 5, None],
)
def test_other_values_are_refused_with_the_right_form(text: object) -> None:
    """A text without a number or a unit, a length of zero or less, or more than a century is refused."""
    with pytest.raises(ValueError, match="write a positive number and a unit"):
        seconds(text)  # type: ignore[arg-type]
