"""Pure: what goes before and after a call to a model: rows made ready and admitted, what counts, what is believed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from failsoft.models.answers import imputation
from failsoft.models.answers.imputation import Imputed, impute
from failsoft.models.breaker.breaker import Admission
from failsoft.models.breaker.window import Counts
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features import Columns, columns
from failsoft.workers.scoring.plan import Call, CallResult, Registry, Served


def prepare(
    features: Sequence[Mapping[str, object]], rows: list[int], card: ModelCard, served: Served
) -> tuple[list[int], Imputed]:
    """The rows of the batch that keep ``card``'s contract, and their columns; all else is by row of the batch too."""
    every = len(rows) == len(features)
    found = columns(features if every else [features[row] for row in rows], card.specs)
    ready = impute(found, card, served.statistics)
    if every and not ready.invalid:
        return rows, ready
    imputed = {rows[i]: names for i, names in ready.imputed.items()}
    if not ready.invalid:
        return rows, Imputed(ready.columns, imputed, {})
    good = [i for i in range(len(rows)) if i not in ready.invalid]
    invalid = {rows[i]: failure for i, failure in ready.invalid.items()}
    return [rows[i] for i in good], Imputed(ready.columns.take(np.array(good, np.intp)), imputed, invalid)


def invalid(features: Sequence[Mapping[str, object]], rows: Sequence[int], card: ModelCard) -> dict[int, Failure]:
    """The rows of the batch that break ``card``'s contract, by row, where no version is loaded to prepare them for."""
    found = imputation.invalid(columns([features[row] for row in rows], card.specs), card)
    return {rows[i]: failure for i, failure in found.items()}


def admit(
    registry: Registry, key: str, rows: list[int], ladder: Mapping[int, Attempt], u: NDArray[np.float64]
) -> tuple[Admission, list[int], list[int]]:
    """What the breaker says, the rows that it admits, in the batch's order, and those that it does not, in any.

    Waiting retries (rows in ``ladder``) are the probes when there are any: live events need not pay. Those with the
    fewest attempts come first: what a sound model cannot answer has climbed, and the last rungs may hold nothing else.
    Where the breaker says ``anywhere`` they are drawn by ``u`` (in [0, 1), one for each row of the batch). The breaker
    learns from one that is asked before another that stands ahead of it on its topic, but its answer is not given
    before its turn.
    """
    retries = [row for row in rows if row in ladder] if ladder else []
    admission = registry.admit(key, len(rows), len(retries))
    if admission.granted >= len(rows):
        return admission, rows, []
    retries.sort(key=lambda row: float(u[row]) if admission.anywhere else ladder[row].number)
    queue = retries + [row for row in rows if row not in ladder]
    return admission, sorted(queue[: admission.granted]), queue[admission.granted :]


def call(served: Served, ready: Columns, card: ModelCard) -> Call:
    """The call of a version, within the bounds that its card sets."""
    return Call(served.key, ready, card.model.deadline, card.model.budget)


def counts(card: ModelCard, calls: int, result: CallResult) -> Counts:
    """What the breaker is told of a call of so many rows. One that nobody ran is no call: as a success it would close a
    breaker.
    """
    failed = sum(1 for f in result.bad.values() if f.trips_breaker)
    calls -= sum(1 for f in result.bad.values() if f.kind is Kind.UNAVAILABLE)
    if not calls:
        return Counts()
    slow = 1 if result.seconds > card.breaker.slow_call else 0
    return Counts(calls, failed, slow, runs=1)


def report(registry: Registry, key: str, admission: Admission, counts: Counts) -> None:
    """Tell the breaker what became of the calls that it admitted, and give back the probes that nobody ran.

    A probe that is neither told nor given back is lost until its lease ends, and nothing probes meanwhile.
    """
    registry.report(key, admission.generation, counts)
    if admission.probe and counts.calls < admission.granted:
        registry.release(key, admission.generation, admission.granted - counts.calls)


def usable(
    card: ModelCard, rows: Sequence[int], result: CallResult, failures: dict[int, Failure] | None
) -> Sequence[int]:
    """Indexes of the rows whose answer may be given; rows of low confidence are noted in ``failures``."""
    assert result.predictions is not None
    least, confidences = card.output.min_confidence, result.predictions.confidences
    unsure: set[int] = set()
    if least is not None and confidences is not None:
        unsure = set(np.flatnonzero(confidences < least).tolist()) - set(result.bad)
    if failures is not None:
        for i in unsure:
            said = f"confidence {float(confidences[i]):.4g} is under {least}"  # type: ignore[index]
            failures[rows[i]] = Failure(Kind.LOW_CONFIDENCE, said)
    if not unsure and not result.bad:
        return range(len(rows))
    return [i for i in range(len(rows)) if i not in unsure and i not in result.bad]


def without(rows: Iterable[int], excluded: Container[int]) -> list[int]:
    """The rows that are not excluded, in order."""
    return [row for row in rows if row not in excluded]
