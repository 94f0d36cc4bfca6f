"""Durations as people write them."""

from __future__ import annotations

import pytest

from failsoft.schemas.config.duration import seconds


@pytest.mark.parametrize(
    ("text", "found"),
    [("200ms", 0.2), ("5s", 5), ("1.5m", 90), ("1h", 3600), ("7d", 604_800), ("036s", 36), ("36500d", 36_500 * 86_400)],
)
def test_a_number_and_a_unit_are_seconds(text: str, found: float) -> None:
    """Milliseconds, seconds, minutes, hours and days."""
    assert seconds(text) == pytest.approx(found)


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "0s", "-1s", "5 s", "5S", "1h30m", "1e3s", ".5s", "5s\n", "５s", "9" * 400 + "s", "36501d", 5, None],
)
def test_anything_else_is_refused_with_what_would_be_right(text: object) -> None:
    """No unit, no number, nothing, less, or more than a century."""
    with pytest.raises(ValueError, match="write a positive number and a unit"):
        seconds(text)  # type: ignore[arg-type]
