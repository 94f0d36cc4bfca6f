"""Pure: the steps before and after a call to a model: prepare rows, ask the breaker, count the result, pick answers."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from failsoft.models.answers import imputation
from failsoft.models.answers.imputation import Imputed, impute
from failsoft.models.breaker.breaker import Admission
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns, columns_in
from failsoft.schemas.features.spec import Spec
from failsoft.schemas.features.table import FeatureTable
from failsoft.schemas.fleet.counts import Counts
from failsoft.workers.scoring.plan import Call, CallResult, Registry, Served


class RawColumns:
    """The columns of a batch's features, as the events have them. Nobody may change them: a fallback with the same
    features as the primary, and the members of an ensemble, get the same ones for the same rows.

    ``features`` has the features of each row of the batch.
    """

    def __init__(self, features: Sequence[Mapping[str, object]] | FeatureTable) -> None:
        self._features = features
        self._rows: list[int] = []
        self._made: Columns | None = None

    def of(self, rows: list[int], specs: Sequence[Spec]) -> Columns:
        """The columns that ``specs`` name, with ``rows`` in this order."""
        if self._made is None or rows != self._rows or self._made.specs != specs:
            features = self._features
            if isinstance(features, FeatureTable):
                self._made = columns_in(features, rows, specs)
            else:
                self._made = columns(features if len(rows) == len(features) else [features[r] for r in rows], specs)
            self._rows = rows
        return self._made


def prepare(raw: RawColumns, rows: list[int], card: ModelCard, served: Served) -> tuple[list[int], Imputed]:
    """Make the feature columns of ``rows`` for one model, with missing values imputed.

    Returns the rows that keep ``card``'s contract, and their columns in the same order; ``imputed``, ``invalid`` and
    ``missing`` are keyed by row of the batch.
    """
    ready = impute(raw.of(rows, card.specs), card, served.statistics, served.dtypes)
    if not ready.invalid and not ready.imputed and not ready.missing:
        return rows, ready
    imputed = {rows[i]: names for i, names in ready.imputed.items()}
    missing = {rows[i]: names for i, names in ready.missing.items()}
    if not ready.invalid:
        return rows, Imputed(ready.columns, imputed, {}, missing)
    good = [i for i in range(len(rows)) if i not in ready.invalid]
    invalid = {rows[i]: failure for i, failure in ready.invalid.items()}
    kept = ready.columns.take(np.array(good, np.intp))
    return [rows[i] for i in good], Imputed(kept, imputed, invalid, missing)


def invalid(raw: RawColumns, rows: list[int], card: ModelCard) -> dict[int, Failure]:
    """The failures of ``rows`` that break ``card``'s contract, by row. For a model without a loaded version, which has
    no statistics to prepare the rows with.
    """
    failures = imputation.invalid(raw.of(rows, card.specs), card)
    return {rows[i]: failure for i, failure in failures.items()}


def admit(
    registry: Registry, key: str, rows: list[int], ladder: Mapping[int, Attempt], u: NDArray[np.float64]
) -> tuple[Admission, list[int], list[int]]:
    """Ask the breaker of ``key`` to admit ``rows``. Returns its admission, the admitted rows in the batch's order, and
    the refused rows in any order.

    If only some rows are admitted, waiting retries (rows in ``ladder``) come before live events, so that live events
    need not be probes. Among the retries, those with the fewest attempts come first: records that even a healthy model
    cannot answer have climbed, and the last rungs may hold nothing else. If the admission has ``anywhere``, the retries
    come in random order instead, by ``u`` (one draw in [0, 1) for each row of the batch).

    A retry may then run before an earlier one of its topic. The breaker counts the result at once; the answer is given
    only when the record's turn comes.
    """
    retries = [row for row in rows if row in ladder] if ladder else []
    admission = registry.admit(key, len(rows), len(retries))
    if admission.granted >= len(rows):
        return admission, rows, []
    retries.sort(key=lambda row: float(u[row]) if admission.anywhere else ladder[row].number)
    queue = retries + [row for row in rows if row not in ladder]
    return admission, sorted(queue[: admission.granted]), queue[admission.granted :]


def call(served: Served, ready: Columns, card: ModelCard, alone: bool) -> Call:
    """The call that runs the columns ``ready`` on ``served``, with the bounds of its card.

    ``alone``: it must not share a run with calls of other lanes.
    """
    model = card.model
    slow = card.breaker.slow_call
    return Call(served.key, ready, model.deadline, model.budget, slow, alone, model.max_batch, served.times)


def counts(card: ModelCard, calls: int, result: CallResult) -> Counts:
    """The counts for the breaker of one call of ``calls`` rows: one call a row, and one run for all of them. If lanes
    shared the run, one of them counts it.

    Rows that could not be run (UNAVAILABLE) are not counted: counted as successes they would close a breaker.
    """
    failed = sum(1 for f in result.bad.values() if f.trips_breaker)
    calls -= sum(1 for f in result.bad.values() if f.kind is Kind.UNAVAILABLE)
    if not calls:
        return Counts()
    slow = result.runs if result.seconds > card.breaker.slow_call else 0
    return Counts(calls, failed, slow, result.runs)


def report(registry: Registry, key: str, admission: Admission, counts: Counts) -> None:
    """Report the admitted calls to the breaker, and release the probes that were not run.

    A probe that is neither reported nor released blocks further probes until its lease expires.
    """
    registry.report(key, admission.generation, counts)
    if admission.probe and counts.calls < admission.granted:
        registry.release(key, admission.generation, admission.granted - counts.calls)


def usable(
    card: ModelCard, rows: Sequence[int], result: CallResult, failures: dict[int, Failure] | None
) -> Sequence[int]:
    """The indexes in ``rows`` of the rows whose prediction is the answer.

    Rows that failed are left out, and so are rows under the card's ``min_confidence``. The latter get a LOW_CONFIDENCE
    failure in ``failures``, by row of the batch, unless it is None.
    """
    assert result.predictions is not None
    least, confidences = card.output.min_confidence, result.predictions.confidences
    unsure: set[int] = set()
    if least is not None and confidences is not None:
        unsure = set(np.flatnonzero(confidences < least).tolist()) - set(result.bad)
    if failures is not None:
        for i in unsure:
            message = f"confidence {float(confidences[i]):.4g} is under {least}"  # type: ignore[index]
            failures[rows[i]] = Failure(Kind.LOW_CONFIDENCE, message)
    if not unsure and not result.bad:
        return range(len(rows))
    return [i for i in range(len(rows)) if i not in unsure and i not in result.bad]


def without(rows: Iterable[int], excluded: Container[int]) -> list[int]:
    """The rows that are not in ``excluded``, in order."""
    return [row for row in rows if row not in excluded]
