"""Training statistics of a feature, and the value that a card imputes by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from failsoft.models.catalog.feature_section import FeatureSection
from failsoft.models.catalog.fields import Method
from failsoft.schemas.features import FeatureType


@dataclass(frozen=True, slots=True)
class Statistic:
    """What the training data say of a feature; None where they say nothing."""

    mean: float | None = None
    median: float | None = None
    mode: bool | int | float | str | None = None


def fill(feature: FeatureSection, statistics: Mapping[str, Statistic]) -> bool | int | float | str | None:
    """The value that stands in for ``feature`` when it is missing, or None if the card and the statistics give none.

    A statistic in the card comes before the version's. A mean or median of integers is rounded to one.
    """
    if feature.impute is None or feature.impute.method is Method.LAST_KNOWN:
        return None
    if feature.impute.method is Method.VALUE:
        return feature.impute.value
    key = feature.impute.method.value
    value: bool | int | float | str | None = getattr(feature, key)
    if value is None and feature.name in statistics:
        value = getattr(statistics[feature.name], key)
    whole = feature.type is FeatureType.INT and isinstance(value, float) and math.isfinite(value)
    return round(value) if whole else value  # type: ignore[arg-type]  # mypy does not see through ``whole``
