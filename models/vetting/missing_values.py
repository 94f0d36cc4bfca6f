"""Checks a model's answers to missing values: NaN in a feature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from failsoft.models.runtime.session import Session
from failsoft.models.vetting.rows import each
from failsoft.models.vetting.verdict import Check, CheckResult
from failsoft.schemas.failure import Failure
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.prediction import Prediction

NAMED = 5
"""Largest number of features that a message names."""

BATCH = 64
"""Rows that are tried at once, one for each feature."""


def nan(session: Session, rows: Columns) -> Check:
    """Tries a NaN in each feature that can have one.

    A feature with ``impute = "nan"`` must get a usable score, alone and together with the others. For other features a
    score is a note: live, imputation comes first.
    """
    known = [spec for spec in session.card.specs if spec.nan]
    others = [spec for spec in session.card.specs if spec.type is FeatureType.FLOAT and not spec.nan]
    if not known and not others:
        return Check("nan", CheckResult.SKIPPED, "no float feature")
    tries: list[tuple[Spec, ...]] = [(spec,) for spec in known]
    if len(known) > 1:
        tries.append(tuple(known))
    failed = [(specs, a) for specs, a in _answers(session, rows, tries) if isinstance(a, Failure)]
    if failed:
        names = _names([spec.name for specs, _ in failed for spec in specs])
        message = f'the card says impute = "nan", and with NaN in {names} there is no usable score'
        mend = "impute a value instead, or use a model that knows missing values"
        return Check("nan", CheckResult.FAILED, f"{message} ({failed[0][1].message}): {mend}")
    said = f"a usable score with NaN in {_names([spec.name for spec in known])}" if known else ""
    answers = _answers(session, rows, [(spec,) for spec in others])
    confident = [specs[0].name for specs, answer in answers if not isinstance(answer, Failure)]
    if not confident:
        none = "no score for a missing value: the model raises, or its output is not a number" if others else ""
        return Check("nan", CheckResult.PASSED, "; ".join(filter(None, (said, none))))
    note = (
        f"it gives a score for a missing {_names(confident)}: only imputation stands before it; if the model knows "
        'missing values, as many trees do, write impute = "nan" there'
    )
    return Check("nan", CheckResult.NOTE, "; ".join(filter(None, (said, note))))


def _answers(
    session: Session, rows: Columns, tries: Sequence[tuple[Spec, ...]]
) -> list[tuple[tuple[Spec, ...], Prediction | Failure]]:
    """Each of the ``tries`` and the answer to one of ``rows`` with NaN in these features."""
    answers: list[Prediction | Failure] = []
    for start in range(0, len(tries), BATCH):
        chunk = tries[start : start + BATCH]
        tried = rows.take(np.arange(start, start + len(chunk)) % rows.size)
        for i, specs in enumerate(chunk):
            for spec in specs:
                tried.values[spec.name][i] = np.nan
        answers += each(session, tried)
    return list(zip(tries, answers, strict=True))


def _names(names: Sequence[str]) -> str:
    kept = list(dict.fromkeys(names))
    return ", ".join(kept[:NAMED]) + (f" and {len(kept) - NAMED} more" if len(kept) > NAMED else "")
