"""Columns and imputation of arbitrary JSON: the fast paths agree with a simple rule on every cell."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import FeatureType, Spec

# A few letters are enough, and save Hypothesis from building its table of all of Unicode in each run.
LETTERS = "ab€\x00"
FLOAT64_MAX = sys.float_info.max
# A shared machine may be slow at any time, which is not a failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
CATEGORIES = ["a", "b", "c"]
FEATURES: list[dict[str, Any]] = [
    {"name": "f", "type": "float"},
    {"name": "g", "type": "float", "impute": 1.25},
    {"name": "n", "type": "float", "impute": "nan"},
    {"name": "i", "type": "int", "impute": -7},
    {"name": "b", "type": "bool", "impute": True},
    {"name": "s", "type": "string", "categories": CATEGORIES, "impute": "b"},
    {"name": "t", "type": "string", "impute": "?"},
]
FILLS = {f["name"]: f.get("impute") for f in FEATURES}

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.sampled_from([*CATEGORIES, "", "1", "true", "zz"]),
    st.text(LETTERS, max_size=50),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(LETTERS, max_size=2), st.integers(), max_size=1),
)
likely = {
    "f": st.floats(-1e6, 1e6),
    "g": st.floats(-1e6, 1e6),
    "n": st.floats(-1e6, 1e6),
    "i": st.integers(-5, 5),
    "b": st.booleans(),
    "s": st.sampled_from(CATEGORIES),
    "t": st.text(LETTERS, max_size=3),
}
events = st.lists(
    st.fixed_dictionaries({}, optional={name: st.one_of(good, good, anything) for name, good in likely.items()}),
    max_size=12,
)
subsets = st.lists(st.sampled_from(FEATURES), min_size=1, unique_by=lambda f: f["name"])


def usable(spec: Spec, event: dict[str, object]) -> bool:
    """A simple form of the rule, independent of the code under test."""
    if spec.name not in event:
        return False
    value = event[spec.name]
    match spec.type:
        case FeatureType.BOOL:
            return value is True or value is False
        case FeatureType.STRING:
            return isinstance(value, str) and (spec.categories is None or value in spec.categories)
        case FeatureType.FLOAT:
            return type(value) in (int, float) and abs(value) <= FLOAT64_MAX  # type: ignore[arg-type]
    if type(value) is float:
        return math.isfinite(value) and value.is_integer() and -(2.0**63) <= value < 2.0**63
    return type(value) is int and -(2**63) <= value < 2**63


@unhurried
@given(events, subsets)
def test_each_cell_is_kept_filled_or_invalid(batch: list[dict[str, object]], features: list[dict[str, Any]]) -> None:
    """Each cell has the event's value, or the card's fill and is named as imputed or missing, or its row is invalid."""
    card = ModelCard.model_validate({"output": {"kind": "binary"}, "features": features})
    made = impute(columns(batch, card.specs), card, {})
    for i, event in enumerate(batch):
        lacking = [spec.name for spec in card.specs if not usable(spec, event)]
        unfilled = [name for name in lacking if FILLS[name] is None]
        assert (i in made.invalid) == bool(unfilled)
        filled = [] if unfilled else lacking
        assert made.imputed.get(i, ()) == tuple(name for name in filled if FILLS[name] != "nan")
        assert made.missing.get(i, ()) == tuple(name for name in filled if FILLS[name] == "nan")
        row = made.columns.row(i)
        for spec in card.specs:
            expected = event[spec.name] if spec.name not in lacking else FILLS[spec.name]
            if spec.type is FeatureType.FLOAT and isinstance(expected, int):
                expected = float(expected)  # an integer over 2^53 becomes the nearest float
            assert row[spec.name] == expected or (expected == "nan" and np.isnan(row[spec.name]))  # type: ignore[call-overload]
            assert type(made.columns.values[spec.name].item(i)) is {"float": float, "int": int, "bool": bool}.get(
                spec.type, str
            )


@unhurried
@given(events, subsets)
def test_why_and_masks_agree(batch: list[dict[str, object]], features: list[dict[str, Any]]) -> None:
    """A cell has a reason exactly if its mask is set, and a mask exists only if one of its cells is set."""
    card = ModelCard.model_validate({"output": {"kind": "binary"}, "features": features})
    made = columns(batch, card.specs)
    marked = {(i, name) for name, mask in made.unusable.items() for i in np.flatnonzero(mask).tolist()}
    assert marked == set(made.why)
    assert all(mask.any() and mask.shape == (len(batch),) for mask in made.unusable.values())


@unhurried
@given(events, subsets, st.data())
def test_a_batch_is_its_rows(
    batch: list[dict[str, object]], features: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Rows taken from a batch equal those of the events read alone: no row depends on its neighbours."""
    card = ModelCard.model_validate({"output": {"kind": "binary"}, "features": features})
    rows = data.draw(st.lists(st.integers(0, len(batch) - 1), unique=True) if batch else st.just([]))
    taken = columns(batch, card.specs).take(np.array(rows, dtype=np.intp))
    alone = columns([batch[i] for i in rows], card.specs)
    assert taken.why == alone.why
    assert [taken.row(i) for i in range(len(rows))] == [alone.row(i) for i in range(len(rows))]
