"""Pure: the fallback chain of a batch: each link is asked for the rows that the links before it did not answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from failsoft.models.answers.fallback import from_rule, static
from failsoft.models.answers.last_known import LastKnown
from failsoft.models.catalog.chain import Link, LinkKind
from failsoft.schemas import wire
from failsoft.schemas.event import Events
from failsoft.schemas.features import Columns, columns
from failsoft.schemas.prediction import Prediction, Predictions, Source
from failsoft.schemas.record import Record
from failsoft.workers.scoring import calls
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Registry, Served
from failsoft.workers.scoring.verdicts import AnsweredRows


class Fallbacks:
    """Answers of one batch by the chain. ``answered`` and ``rule_errors`` hold what came of it."""

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        known: LastKnown | None,
        now_ms: int,
        records: Sequence[Record],
        events: Events,
        prepared: tuple[list[int], Columns | None] = ([], None),
        imputed: Mapping[int, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        """``prepared``: the rows that the primary got, and their columns; ``imputed``: what was filled in them. A rule
        reads a row as the primary got it.
        """
        self.plan, self.registry, self.known, self.now_ms = plan, registry, known, now_ms
        self.records, self.events = records, events
        self.answered: list[AnsweredRows] = []
        self.rule_errors: Counter[tuple[str, str]] = Counter()
        self.prepared, self.imputed = prepared, imputed

    def ask(self, links: Sequence[Link], pending: list[int]) -> Generator[Call, CallResult, None]:
        """Walk ``links`` with the rows that need an answer; the last link, ``static``, always gives one."""
        for link in links:
            if not pending:
                return
            if link.kind is LinkKind.MODEL:
                pending = yield from self._ask_model(str(link.target), pending)
            elif link.kind is LinkKind.LAST_KNOWN:
                pending = self._recall(pending)
            elif link.kind is LinkKind.RULE:
                pending = self._ask_rule(str(link.target), pending)
            else:
                given = static(self.plan.cards[self.plan.primary])
                answer = Predictions.of([given]).take(np.zeros(len(pending), np.intp))
                self._answer(pending, answer, Source.STATIC, None, {})
                pending = []

    def _answer(
        self,
        rows: Sequence[int],
        predictions: Predictions,
        source: Source,
        served: Served | None,
        imputed: Mapping[int, tuple[str, ...]],
        name: str | None = None,
    ) -> None:
        model, version = (served.model, served.version) if served else (name, None)
        self.answered.append(AnsweredRows(rows, predictions, source, model, version, imputed))

    def _ask_model(self, model: str, pending: list[int]) -> Generator[Call, CallResult, list[int]]:
        """The rows that ``model`` could not answer."""
        served, card = self.registry.serving(model), self.plan.cards[model]
        if served is None:
            return pending
        rows, ready = calls.prepare(
            self.events.features, [r for r in pending if r not in self.events.failures], card, served
        )
        admission = self.registry.admit(served.key, len(rows)) if rows else None
        if admission is None or admission.granted == 0:
            return pending
        asked = rows[: admission.granted]
        asked_columns = ready.columns.take(np.arange(len(asked))) if len(asked) < len(rows) else ready.columns
        result = yield calls.call(served, asked_columns, card)
        calls.report(self.registry, served.key, admission, calls.counts(card, len(asked), result))
        if result.predictions is None:
            return pending
        good = calls.usable(card, asked, result, None)
        if not good:
            return pending
        answered = asked if len(good) == len(asked) else [asked[i] for i in good]
        predictions = result.predictions
        if len(good) < len(asked):
            predictions = predictions.take(np.array(good, np.intp))
        self._answer(answered, predictions, Source.FALLBACK_MODEL, served, ready.imputed)
        return pending if not answered else calls.without(pending, set(answered))

    def _recall(self, pending: list[int]) -> list[int]:
        if self.known is None:
            return pending
        found: dict[tuple[str, int | None], dict[int, Prediction]] = {}
        for row in pending:
            key = self.records[row].key
            memory = None if key is None else self.known.recall(key, self.now_ms / 1000)
            if memory is not None:
                found.setdefault((memory.model, memory.version), {})[row] = memory.prediction
        for (model, version), given in found.items():
            for rows, predictions in _in_columns(given):
                self.answered.append(AnsweredRows(rows, predictions, Source.LAST_KNOWN, model, version, {}))
        return calls.without(pending, {row for given in found.values() for row in given})

    def _ask_rule(self, target: str, pending: list[int]) -> list[int]:
        """The rows that the user's rule could not answer. A rule is foreign code: whatever it raises is its 'no'."""
        rule = self.plan.rules[target]
        given: dict[int, Prediction] = {}
        for row, values in self._rule_values(pending):
            try:
                said = from_rule(rule(values))
            except Exception as e:  # noqa: BLE001
                self.rule_errors[target, type(e).__name__] += 1
                continue
            if said is not None and _writable(said):
                given[row] = said
        for rows, predictions in _in_columns(given):
            self._answer(rows, predictions, Source.RULE, None, self.imputed, name=target)
        return calls.without(pending, given)

    def _rule_values(self, pending: Sequence[int]) -> Iterator[tuple[int, dict[str, object]]]:
        """What a rule reads of each row that can be read: the values that the primary got or would have got, and
        where no version was there to impute (or the row is invalid, or an ensemble's, of which each member imputes for
        itself), the event's own, None where one is unusable.
        """
        kept, prepared = self.prepared
        place = {row: i for i, row in enumerate(kept)}
        other = [row for row in pending if row not in place and row not in self.events.failures]
        plain = columns([self.events.features[row] for row in other], self.plan.specs) if other else None
        plain_place = {row: i for i, row in enumerate(other)}
        for row in pending:
            if prepared is not None and row in place:
                yield row, prepared.row(place[row])
            elif plain is not None and row in plain_place:
                yield row, plain.row(plain_place[row])


def _writable(prediction: Prediction) -> bool:
    """Can the answer be written as JSON? A label past 64 bits or of half a character would end the worker instead."""
    try:
        wire.dumps(prediction.label)
    except TypeError:
        return False
    return True


def _in_columns(given: Mapping[int, Prediction]) -> Iterator[tuple[list[int], Predictions]]:
    """Single answers as columns: those with as many probabilities (a rule may give them to some rows only) together."""
    groups: dict[int, dict[int, Prediction]] = {}
    for row, prediction in given.items():
        groups.setdefault(len(prediction.probabilities or ()), {})[row] = prediction
    for group in groups.values():
        yield list(group), Predictions.of(list(group.values()))
