"""Pure: an ensemble's members asked one after the other, and what is made of those that spoke.

A member that fails, is refused by its breaker or has no version is left out of the rows concerned. Rows of which a
quorum spoke are answered, for good; the others fail as a primary would (docs/decisions/0010-ensembles.md). An event
that breaks a member's contract is invalid for that member, whether or not a version of it is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
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
from failsoft.workers.scoring.verdicts import AnsweredRows


@dataclass(slots=True)
class EnsembleResult:
    """What became of the rows: ``failures`` of those under the quorum; ``waiting`` ones are from the ladder, and were
    put to fewer members than that; ``missing`` is why a member is missing from an answer.
    """

    answered: list[AnsweredRows] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    missing: dict[int, Failure] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Member:
    """One member's part: ``rows`` it answered, why not others, and those that were not put to it: its breaker or its
    absence kept them away, or they probed on the fleet's behalf and failed.
    """

    key: str
    rows: Sequence[int] = ()
    predictions: Predictions | None = None
    failures: dict[int, Failure] = field(default_factory=dict)
    unasked: set[int] = field(default_factory=set)
    imputed: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def ask(
    plan: Plan,
    registry: Registry,
    features: Sequence[Mapping[str, object]],
    rows: list[int],
    ladder: Mapping[int, Attempt],
    u: NDArray[np.float64],
) -> Generator[Call, CallResult, EnsembleResult]:
    """Ask every member of the plan's primary for ``rows`` (ascending) of the batch whose features are ``features``.

    ``ladder`` has the rows that come from a rung or from replay, ``u`` a draw in [0, 1) for each row of the batch.
    """
    asked = []
    for name in plan.asked:
        asked.append((yield from _ask(name, plan.cards[name], registry, features, rows, ladder, u)))
    return _Settled(plan.cards[plan.primary], rows, asked, ladder).result


def _ask(
    name: str,
    card: ModelCard,
    registry: Registry,
    features: Sequence[Mapping[str, object]],
    rows: list[int],
    ladder: Mapping[int, Attempt],
    u: NDArray[np.float64],
) -> Generator[Call, CallResult, _Member]:
    served = registry.serving(name)
    if served is None:
        invalid = calls.invalid(features, rows, card)
        unasked = calls.without(rows, invalid)
        why = Failure(Kind.UNAVAILABLE, f"no version of {name} is loaded")
        return _Member(name, failures=invalid | dict.fromkeys(unasked, why), unasked=set(unasked))
    kept, ready = calls.prepare(features, rows, card, served)
    member = _Member(served.key, failures=ready.invalid, imputed=ready.imputed)
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
    result = yield calls.call(served, columns, card)
    calls.report(registry, served.key, admission, calls.counts(card, len(granted), result))
    for i, failure in result.bad.items():
        member.failures[granted[i]] = failure
        # A crash is counted in what is written of its row, and a row that waits is not written.
        if admission.probe and failure.trips_breaker and failure.kind is not Kind.CRASHED:
            member.unasked.add(granted[i])
    if result.predictions is not None:
        good = calls.usable(card, granted, result, member.failures)
        whole = len(good) == len(granted)
        member.rows = granted if whole else [granted[i] for i in good]
        member.predictions = result.predictions if whole else result.predictions.take(np.array(good, np.intp))
    return member


class _Settled:
    """The rows, after each member was asked."""

    def __init__(self, card: ModelCard, rows: list[int], asked: list[_Member], ladder: Collection[int]) -> None:
        assert card.ensemble is not None
        self.card, self.asked, self.ladder = card, asked, ladder
        self.quorum, self.result = card.ensemble.quorum, EnsembleResult()
        self._worded: dict[tuple[int, int, int], Failure] = {}
        batch = np.array(rows, np.intp)
        groups = combine(card, [_spoken(member, batch) for member in asked], len(rows))
        left = np.ones(len(rows), np.bool_)
        for group in groups:
            left[group.rows] = False
            self._answer(batch[group.rows].tolist(), group)
        for row in batch[left].tolist():
            self._fail(row)

    def _answer(self, rows: list[int], group: MemberGroup) -> None:
        missing = [j for j in range(len(self.asked)) if j not in group.members]
        by_kind: dict[Kind | None, list[int]] = {}
        if not missing:
            by_kind[None] = list(range(len(rows)))
        else:
            first = self.asked[missing[0]].failures
            for i, row in enumerate(rows):
                by_kind.setdefault(first[row].kind, []).append(i)
                self.result.missing[row] = self._words(missing[0], first[row], len(missing))
        imputed = self._imputed(group.members)
        for kind, places in by_kind.items():
            which, predictions = rows, group.predictions
            if len(places) < len(rows):
                which, predictions = [rows[i] for i in places], predictions.take(np.array(places, np.intp))
            self._give(which, predictions, group, kind, imputed)

    def _give(
        self,
        rows: list[int],
        predictions: Predictions,
        group: MemberGroup,
        reason: Kind | None,
        imputed: Mapping[int, tuple[str, ...]],
    ) -> None:
        """Answers of one kind, save those of which the ensemble as a whole is unsure."""
        good = calls.usable(self.card, rows, CallResult(predictions, {}, 0.0), self.result.failures)
        if len(good) < len(rows):
            predictions = predictions.take(np.array(good, np.intp))
            unsure = set(rows) - {rows[i] for i in good}
            rows = [rows[i] for i in good]
            for row in unsure:
                self.result.missing.pop(row, None)  # its failure is told, and that is the ensemble's
        if rows:
            members = tuple(self.asked[j].key for j in group.members)
            self.result.answered.append(
                AnsweredRows(rows, predictions, Source.ENSEMBLE, self.card.name, None, imputed, members, reason)
            )

    def _imputed(self, members: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """What was imputed for any of those that spoke, by row."""
        found: dict[int, tuple[str, ...]] = {}
        for j in members:
            for row, names in self.asked[j].imputed.items():
                found[row] = tuple(dict.fromkeys((*found.get(row, ()), *names)))
        return found

    def _fail(self, row: int) -> None:
        """Too few spoke. What no attempt can help decides only if without it there can be no quorum."""
        n = len(self.asked)
        missing = [(j, member.failures[row]) for j, member in enumerate(self.asked) if row in member.failures]
        hopeless = [(j, failure) for j, failure in missing if not failure.retried]
        if n - len(hopeless) >= self.quorum:
            j, why = next(each for each in missing if each[1].retried)
            tried = n - sum(row in member.unasked for member in self.asked)
            if row in self.ladder and tried < self.quorum:
                self.result.waiting.append(row)
                return
        else:
            dead = [each for each in hopeless if each[1].kind.dead_at_once]
            j, why = (dead if n - len(dead) < self.quorum else [each for each in hopeless if each not in dead])[0]
        self.result.failures[row] = self._words(j, why, len(missing))

    def _words(self, j: int, failure: Failure, missing: int) -> Failure:
        """A member's failure as the ensemble's. One object for all rows that share it, as the member's own is."""
        known = self._worded.get((j, id(failure), missing))
        if known is None:
            said = f"{self.asked[j].key}: {failure.message} ({missing} of {len(self.asked)} members did not speak)"
            known = self._worded[j, id(failure), missing] = Failure(failure.kind, said)
        return known


def _spoken(member: _Member, batch: NDArray[np.intp]) -> MemberOutput | None:
    if member.predictions is None or not member.rows:
        return None
    return MemberOutput(np.searchsorted(batch, np.array(member.rows, np.intp)), member.predictions)
