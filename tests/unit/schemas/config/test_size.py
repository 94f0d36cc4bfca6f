"""Sizes: text to bytes and back."""

from __future__ import annotations

import pytest

from failsoft.schemas.config.size import bytes_of, text


@pytest.mark.parametrize(
    ("written", "meant"),
    [("512MB", 512_000_000), ("512MiB", 536_870_912), ("1.5GB", 1_500_000_000), ("64KB", 64_000), ("1TiB", 2**40)],
)
def test_a_size_is_a_number_and_a_unit(written: str, meant: int) -> None:
    """Decimal units are powers of 1,000 and binary units powers of 1,024."""
    assert bytes_of(written) == meant


@pytest.mark.parametrize("written", ["512", "MB", "-1MB", "0MB", "512 MB", "512mb", "1e3MB", "9999TB", "", 512, None])
def test_other_values_are_refused_with_the_right_form(written: object) -> None:
    """A value without a known unit, or beyond the limit, is refused; no unit is guessed."""
    with pytest.raises(ValueError, match=r'such as "512MB"'):
        bytes_of(written)  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["512MB", "512MiB", "2GB", "3GiB", "192MB", "700KB", "1TB"])
def test_a_size_is_shown_as_it_was_written(written: str) -> None:
    """The text of a size is the one in the card, so messages name the limit in the same form."""
    assert text(bytes_of(written)) == written
