"""Imputation by the card: fills missing values, records which were filled, and finds the rows that stay invalid.

For a model that knows missing values (``impute = "nan"``) a value is filled with NaN, which is no imputation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.fields import Method
from failsoft.models.catalog.statistics import Statistic, fill
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.ranges import within

MOST_NAMED = 20
"""Features of which a failure says what is wrong. Its 500 bytes in a header have room for fewer."""


@dataclass(frozen=True, slots=True)
class Imputed:
    """The result of imputing a batch.

    Attributes:
        columns: the filled columns. All rows can be run except those in ``invalid``, which keep their masks.
        imputed: for each imputed row, the names of the features that were filled. Invalid rows are not listed.
        invalid: for each row that cannot be run, the failure.
        missing: for each row with features that go to the model as NaN, their names. Invalid rows are not listed.
    """

    columns: Columns
    imputed: dict[int, tuple[str, ...]]
    invalid: dict[int, Failure]
    missing: dict[int, tuple[str, ...]] = field(default_factory=dict)


def impute(
    columns: Columns,
    card: ModelCard,
    statistics: Mapping[str, Statistic],
    dtypes: Mapping[str, str] = MappingProxyType({}),
) -> Imputed:
    """Fills every unusable cell for which the card has ``impute``. Does not change ``columns`` itself.

    ``dtypes`` are those of the version: a number that it cannot hold is unusable too. Without them, none is checked.
    A batch without missing values costs no work a row. Raises LookupError if neither the card nor ``statistics`` has
    the statistic to impute with; the repository refuses such a version before any event is read.
    """
    columns = within(columns, dtypes)
    if not columns.unusable:
        return Imputed(columns, {}, {})
    filled = _copy_of_unusable(columns)
    named: dict[int, list[str]] = {}
    nan: dict[int, list[str]] = {}
    lacking: dict[int, list[str]] = {}
    for feature in card.features:
        mask = columns.unusable.get(feature.name)
        if mask is None:
            continue
        method = None if feature.impute is None else feature.impute.method
        if method is None or method is Method.LAST_KNOWN:
            rows = lacking  # nothing keeps last known values of features yet, and a worker refuses such a card
        elif method is Method.NAN:
            rows = nan
            filled.values[feature.name][mask] = np.nan
        else:
            rows = named
            value = fill(feature, statistics)
            if value is None:
                raise LookupError(f"feature {feature.name!r}: no {method} to impute it with")
            filled.values[feature.name][mask] = value  # of a tensor: all elements of the row
        for i in np.flatnonzero(mask).tolist():
            rows.setdefault(i, []).append(feature.name)
    _keep_masks(filled, columns, lacking)
    return Imputed(
        filled,
        {i: tuple(names) for i, names in named.items() if i not in lacking},
        {i: _invalid(columns, card, i, names) for i, names in lacking.items()},
        {i: tuple(names) for i, names in nan.items() if i not in lacking},
    )


def invalid(columns: Columns, card: ModelCard) -> dict[int, Failure]:
    """The rows that are invalid for every version: a feature is unusable, and the card does not impute it.

    Used when no version is loaded. A version's statistics are not needed for this decision.
    """
    lacking: dict[int, list[str]] = {}
    for feature in card.features:
        mask = columns.unusable.get(feature.name)
        if mask is not None and feature.impute is None:
            for i in np.flatnonzero(mask).tolist():
                lacking.setdefault(i, []).append(feature.name)
    return {i: _invalid(columns, card, i, names) for i, names in lacking.items()}


def _copy_of_unusable(columns: Columns) -> Columns:
    """Columns with no cell marked unusable. Columns that had an unusable cell are copied, the others are shared."""
    if columns.matrix is not None:
        # The values are views of the matrix, which must stay one block. Copying it whole is the cheapest way.
        matrix = columns.matrix.copy()
        views = {spec.name: matrix[:, j] for j, spec in enumerate(columns.specs)}
        return Columns(columns.specs, columns.size, views, matrix)
    values = {name: column.copy() if name in columns.unusable else column for name, column in columns.values.items()}
    return Columns(columns.specs, columns.size, values)


def _keep_masks(filled: Columns, columns: Columns, lacking: Mapping[int, list[str]]) -> None:
    rows: dict[str, list[int]] = {}
    for i, names in lacking.items():
        for name in names:
            rows.setdefault(name, []).append(i)
            filled.why[i, name] = columns.why[i, name]
    for name, some in rows.items():
        filled.unusable[name] = np.zeros(columns.size, dtype=np.bool_)
        filled.unusable[name][some] = True


def _invalid(columns: Columns, card: ModelCard, row: int, names: list[str]) -> Failure:
    """The failure of a row. Its message has one clause a feature: what is wrong, and why it was not imputed."""
    some = names if len(names) <= MOST_NAMED else names[:MOST_NAMED]
    recalled = {f.name for f in card.features if f.impute is not None and f.name in some}
    clauses = [
        f"feature {name!r}: {columns.why[row, name]}; "
        + ("no last known value is available" if name in recalled else "the card does not impute it")
        for name in some
    ]
    if len(names) > len(some):
        clauses.append(f"and {len(names) - len(some)} more features")
    return Failure(Kind.INVALID, "; ".join(clauses))
