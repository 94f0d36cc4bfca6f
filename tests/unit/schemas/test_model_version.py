"""Model versions and their text form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.schemas.model_version import ModelVersion, model_of


@given(st.text(min_size=1), st.integers(0, 10**18 - 1))
def test_the_text_form_is_parsed_back(model: str, version: int) -> None:
    """Parsing a version's text gives the version, also for a model name that contains an @."""
    one = ModelVersion(model, version)
    assert ModelVersion.parse(str(one)) == ModelVersion.of_key(str(one)) == one
    assert model_of(str(one)) == model


@pytest.mark.parametrize("text", ["", "m", "@1", "m@", "m@x", "m@-1", "m@1.0", "m@02", "m@ 2", "m@٣", f"m@1{'0' * 18}"])
def test_other_texts_are_not_versions(text: str) -> None:
    """Only the canonical text is parsed: ``m@02`` would be a second key for ``m@2``, and int() would read ٣ as 3."""
    assert ModelVersion.parse(text) is None and model_of(text) is None
    with pytest.raises(ValueError, match="MODEL@VERSION"):
        ModelVersion.of_key(text)


def test_versions_are_ordered_by_number() -> None:
    """Versions sort by number, not as text, which sorts 10 before 9."""
    assert sorted([ModelVersion("m", 10), ModelVersion("m", 9)]) == [ModelVersion("m", 9), ModelVersion("m", 10)]
