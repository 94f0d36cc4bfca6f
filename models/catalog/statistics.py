"""A feature's training statistics, and the value with which a card imputes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from failsoft.models.catalog.feature_section import FeatureSection
from failsoft.models.catalog.fields import Method
from failsoft.schemas.features.spec import FeatureType


@dataclass(frozen=True, slots=True)
class Statistic:
    """A feature's mean, median and mode in the training data; None where unknown."""

    mean: float | None = None
    median: float | None = None
    mode: bool | int | float | str | None = None


def fill(feature: FeatureSection, statistics: Mapping[str, Statistic]) -> bool | int | float | str | None:
    """The value that replaces ``feature`` when it is missing; None if neither the card nor ``statistics`` gives one.

    A statistic in the card takes precedence over the version's. The mean or median of an integer feature is rounded to
    an integer. ``last_known`` gives None, because its value depends on the event; so does ``nan``, which is no value.
    """
    if feature.impute is None or feature.impute.method in (Method.LAST_KNOWN, Method.NAN):
        return None
    if feature.impute.method is Method.VALUE:
        return feature.impute.value
    key = feature.impute.method.value
    value: bool | int | float | str | None = getattr(feature, key)
    if value is None and feature.name in statistics:
        value = getattr(statistics[feature.name], key)
    whole = feature.type is FeatureType.INT and isinstance(value, float) and math.isfinite(value)
    return round(value) if whole else value  # type: ignore[arg-type]  # mypy cannot infer the type from ``whole``
