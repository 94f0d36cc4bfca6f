"""Pure: calls the members of an ensemble one after the other, and combines their answers row by row.

A member is missing for a row if it fails, its breaker refuses the row, or no version of it is loaded. A row that at
least a quorum of members answered gets a final answer. Any other row fails as a single primary's row does
(docs/decisions/0010-ensembles.md). An event that breaks a member's contract is invalid for that member, whether or not
a version of it is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from failsoft.models.answers.ensemble import MemberGroup, MemberOutput, combine
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions, Source
from failsoft.workers.scoring import calls
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Registry
from failsoft.workers.scoring.poison import suspected
from failsoft.workers.scoring.verdicts import AnsweredRows


@dataclass(slots=True)
class EnsembleResult:
    """The result of an ensemble for its rows.

    Attributes:
        answered: the answers of rows that a quorum of members answered.
        failures: why a row with fewer answers failed, by row.
        missing: the failure of the first member that is missing from an answer, by row.
        waiting: rows of the ladder for which fewer members than a quorum could be called. They use no attempt.
    """

    answered: list[AnsweredRows] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    missing: dict[int, Failure] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Member:
    """One member's result.

    Attributes:
        key: the version as ``model@version``, or the model's name if no version is loaded.
        rows: the rows that it answered.
        predictions: one for each of ``rows``, or None.
        failures: why it did not answer a row, by row.
        unasked: rows for which it does not count as called: its breaker refused them, no version is loaded, or they
            were probes that failed.
        imputed: the features that were imputed for it, by row.
        nans: the features that went to it as NaN, by row.
    """

    key: str
    rows: Sequence[int] = ()
    predictions: Predictions | None = None
    failures: dict[int, Failure] = field(default_factory=dict)
    unasked: set[int] = field(default_factory=set)
    imputed: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    nans: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def ask(
    plan: Plan,
    registry: Registry,
    raw: calls.RawColumns,
    rows: list[int],
    ladder: Mapping[int, Attempt],
    u: NDArray[np.float64],
) -> Generator[Call, CallResult, EnsembleResult]:
    """Call every member of the plan's primary for ``rows``, and combine the answers.

    Args:
        plan: the pipeline's models.
        registry: the versions that serve here, and their breakers.
        raw: the features of the batch as columns.
        rows: the rows to answer, ascending.
        ladder: the attempts of rows that come from a rung or from the replay topic.
        u: one random draw in [0, 1) for each row of the batch.
    """
    asked = []
    for name in plan.asked:
        asked.append((yield from _ask(name, plan.cards[name], registry, raw, rows, ladder, u)))
    return _Combined(plan.cards[plan.primary], rows, asked, ladder).result


def _ask(
    name: str,
    card: ModelCard,
    registry: Registry,
    raw: calls.RawColumns,
    rows: list[int],
    ladder: Mapping[int, Attempt],
    u: NDArray[np.float64],
) -> Generator[Call, CallResult, _Member]:
    """Call one member, the model ``name``, for ``rows``. The other parameters are those of ``ask``."""
    served = registry.serving(name)
    if served is None:
        invalid = calls.invalid(raw, rows, card)
        unasked = calls.without(rows, invalid)
        why = Failure(Kind.UNAVAILABLE, f"no version of {name} is loaded")
        return _Member(name, failures=invalid | dict.fromkeys(unasked, why), unasked=set(unasked))
    kept, ready = calls.prepare(raw, rows, card, served)
    member = _Member(served.key, failures=ready.invalid, imputed=ready.imputed, nans=ready.missing)
    if not kept:
        return member
    admission, granted, refused = calls.admit(registry, served.key, kept, ladder, u)
    columns = ready.columns
    if refused:
        member.failures.update(dict.fromkeys(refused, Failure(Kind.BREAKER_OPEN, "its breaker is open")))
        member.unasked.update(refused)
        if not granted:
            return member
        columns = columns.take(np.searchsorted(kept, granted))
    result = yield calls.call(served, columns, card, admission.probe or suspected(granted, ladder))
    calls.report(registry, served.key, admission, calls.counts(card, len(granted), result))
    for i, failure in result.bad.items():
        member.failures[granted[i]] = failure
        # A failed probe does not count as a call, so its row waits. A crash does count: the crash count is written only
        # with the row's next record, and a row that waits is not written.
        if admission.probe and failure.trips_breaker and failure.kind is not Kind.CRASHED:
            member.unasked.add(granted[i])
    if result.predictions is not None:
        good = calls.usable(card, granted, result, member.failures)
        all_good = len(good) == len(granted)
        member.rows = granted if all_good else [granted[i] for i in good]
        member.predictions = result.predictions if all_good else result.predictions.take(np.array(good, np.intp))
    return member


class _Combined:
    """Combines the members' results. ``result`` is complete when the constructor returns."""

    def __init__(self, card: ModelCard, rows: list[int], asked: list[_Member], ladder: Collection[int]) -> None:
        assert card.ensemble is not None
        self.card, self.asked, self.ladder = card, asked, ladder
        self.quorum, self.result = card.ensemble.quorum, EnsembleResult()
        self._failures: dict[tuple[int, int, int], Failure] = {}
        batch = np.array(rows, np.intp)
        groups = combine(card, [_output(member, batch) for member in asked], len(rows))
        unanswered = np.ones(len(rows), np.bool_)
        for group in groups:
            unanswered[group.rows] = False
            self._answer(batch[group.rows].tolist(), group)
        for row in batch[unanswered].tolist():
            self._fail(row)

    def _answer(self, rows: list[int], group: MemberGroup) -> None:
        """Add the answers of ``rows``, which the same members answered, split by the reason why another is missing."""
        missing = [j for j in range(len(self.asked)) if j not in group.members]
        by_kind: dict[Kind | None, list[int]] = {}
        if not missing:
            by_kind[None] = list(range(len(rows)))
        else:
            first = self.asked[missing[0]].failures
            for i, row in enumerate(rows):
                by_kind.setdefault(first[row].kind, []).append(i)
                self.result.missing[row] = self._failure(missing[0], first[row], len(missing))
        called = [self.asked[j] for j in group.members]
        filled = _union(member.imputed for member in called), _union(member.nans for member in called)
        for kind, indexes in by_kind.items():
            same_kind, predictions = rows, group.predictions
            if len(indexes) < len(rows):
                same_kind, predictions = [rows[i] for i in indexes], predictions.take(np.array(indexes, np.intp))
            self._add_answers(same_kind, predictions, group, kind, *filled)

    def _add_answers(
        self,
        rows: list[int],
        predictions: Predictions,
        group: MemberGroup,
        reason: Kind | None,
        imputed: Mapping[int, tuple[str, ...]],
        nans: Mapping[int, tuple[str, ...]],
    ) -> None:
        """Add answers with one reason. Rows under the ensemble's own ``min_confidence`` fail instead."""
        good = calls.usable(self.card, rows, CallResult(predictions, {}, 0.0), self.result.failures)
        if len(good) < len(rows):
            predictions = predictions.take(np.array(good, np.intp))
            unsure = set(rows) - {rows[i] for i in good}
            rows = [rows[i] for i in good]
            for row in unsure:
                self.result.missing.pop(row, None)  # the row fails, and its failure is the ensemble's own
        if rows:
            members = tuple(self.asked[j].key for j in group.members)
            self.result.answered.append(
                AnsweredRows(rows, predictions, Source.ENSEMBLE, self.card.name, None, imputed, members, reason, nans)
            )

    def _fail(self, row: int) -> None:
        """Fail a row that fewer members than the quorum answered, or let it wait.

        If a retry can still reach the quorum, the failure is the first one that is retried. A row of the ladder then
        waits, without using an attempt, if fewer members than the quorum were called. If no retry can reach the quorum,
        the failure is one that is not retried: one for which the event is dead-lettered at once, if those alone make
        the quorum impossible, else low confidence.
        """
        n = len(self.asked)
        missing = [(j, member.failures[row]) for j, member in enumerate(self.asked) if row in member.failures]
        not_retried = [(j, failure) for j, failure in missing if not failure.retried]
        if n - len(not_retried) >= self.quorum:
            j, failure = next(pair for pair in missing if pair[1].retried)
            called = n - sum(row in member.unasked for member in self.asked)
            if row in self.ladder and called < self.quorum:
                self.result.waiting.append(row)
                return
        else:
            dead = [pair for pair in not_retried if pair[1].kind.dead_at_once]
            j, failure = (dead if n - len(dead) < self.quorum else [p for p in not_retried if p not in dead])[0]
        self.result.failures[row] = self._failure(j, failure, len(missing))

    def _failure(self, j: int, failure: Failure, missing: int) -> Failure:
        """The failure of member ``j`` as the ensemble's. Rows that share the member's Failure object share one here."""
        known = self._failures.get((j, id(failure), missing))
        if known is None:
            message = f"{self.asked[j].key}: {failure.message} ({missing} of {len(self.asked)} members did not answer)"
            known = self._failures[j, id(failure), missing] = Failure(failure.kind, message)
        return known


def _union(by_member: Iterable[Mapping[int, tuple[str, ...]]]) -> dict[int, tuple[str, ...]]:
    """The features that any of the members has for a row, each once, by row."""
    found: dict[int, tuple[str, ...]] = {}
    for by_row in by_member:
        for row, names in by_row.items():
            found[row] = tuple(dict.fromkeys((*found.get(row, ()), *names)))
    return found


def _output(member: _Member, batch: NDArray[np.intp]) -> MemberOutput | None:
    """The member's predictions, with its rows as indexes in ``batch``; None if it answered no row."""
    if member.predictions is None or not member.rows:
        return None
    return MemberOutput(np.searchsorted(batch, np.array(member.rows, np.intp)), member.predictions)
