"""Pure: runs the fallback chain for a batch. Each link gets the rows that the links before it did not answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from failsoft.models.answers.fallback import from_rule, in_order, static
from failsoft.models.answers.last_known import LastKnown
from failsoft.models.catalog.chain import Link, LinkKind
from failsoft.models.catalog.static_answer import label_mistake
from failsoft.schemas import wire
from failsoft.schemas.event import Events
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.prediction import Prediction, Predictions, Source
from failsoft.schemas.record import Record
from failsoft.workers.scoring import calls
from failsoft.workers.scoring.calls import RawColumns
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Registry, Served
from failsoft.workers.scoring.verdicts import AnsweredRows

UNKNOWN_LABEL = "UnknownLabel"
"""The name under which an answer of a rule is counted whose label the primary's card does not have."""


class Fallbacks:
    """Answers rows of one batch by the fallback chain.

    Attributes:
        answered: the answers so far, by link.
        rule_errors: errors that rules raised, by rule and name of the error; UNKNOWN_LABEL for a label that is none.
    """

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        known: LastKnown | None,
        now_ms: int,
        records: Sequence[Record],
        events: Events,
        raw: RawColumns,
        prepared: tuple[list[int], Columns | None] = ([], None),
        imputed: Mapping[int, tuple[str, ...]] = MappingProxyType({}),
        nans: Mapping[int, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        """Take what the links need of the batch.

        Args:
            plan: the pipeline's models, chain and rules.
            registry: the versions that serve here, and their breakers.
            known: the memory of ``last_known``, or None.
            now_ms: the wall clock (epoch milliseconds).
            records: the records of the batch.
            events: their decoded events.
            raw: their features as columns.
            prepared: the rows that were prepared for the primary, and their columns. A rule reads a row's values there.
            imputed: the features that were imputed in those columns, by row.
            nans: the features that are NaN in those columns, because their values are missing, by row.
        """
        self.plan, self.registry, self.known, self.now_ms = plan, registry, known, now_ms
        self.records, self.events, self.raw = records, events, raw
        self.answered: list[AnsweredRows] = []
        self.rule_errors: Counter[tuple[str, str]] = Counter()
        self.prepared, self.imputed, self.nans = prepared, imputed, nans

    def ask(self, links: Sequence[Link], pending: list[int]) -> Generator[Call, CallResult, None]:
        """Pass the rows ``pending`` down ``links``. The last link, ``static``, answers every row that is left."""
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
                prediction = static(self.plan.cards[self.plan.primary])
                predictions = Predictions.of([prediction]).take(np.zeros(len(pending), np.intp))
                self._answer(pending, predictions, Source.STATIC, None, {})
                pending = []

    def _answer(
        self,
        rows: Sequence[int],
        predictions: Predictions,
        source: Source,
        served: Served | None,
        imputed: Mapping[int, tuple[str, ...]],
        name: str | None = None,
        nans: Mapping[int, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        model, version = (served.model, served.version) if served else (name, None)
        self.answered.append(AnsweredRows(rows, predictions, source, model, version, imputed, missing=nans))

    def _ask_model(self, model: str, pending: list[int]) -> Generator[Call, CallResult, list[int]]:
        """Call the fallback model ``model`` for ``pending``. Returns the rows that it did not answer.

        Its breaker counts the call. A row that fails here has no failure of its own: the next link answers it.
        """
        served, card = self.registry.serving(model), self.plan.cards[model]
        if served is None:
            return pending
        rows, ready = calls.prepare(self.raw, [r for r in pending if r not in self.events.failures], card, served)
        admission = self.registry.admit(served.key, len(rows)) if rows else None
        if admission is None or admission.granted == 0:
            return pending
        asked = rows[: admission.granted]
        asked_columns = ready.columns.take(np.arange(len(asked))) if len(asked) < len(rows) else ready.columns
        result = yield calls.call(served, asked_columns, card, admission.probe)
        calls.report(self.registry, served.key, admission, calls.counts(card, len(asked), result))
        if result.predictions is None:
            return pending
        good = calls.usable(card, asked, result, None)
        if not good:
            return pending
        answered = asked if len(good) == len(asked) else [asked[i] for i in good]
        primary = self.plan.cards[self.plan.primary].output
        predictions = in_order(result.predictions, card.output.labels, primary.labels)
        if len(good) < len(asked):
            predictions = predictions.take(np.array(good, np.intp))
        self._answer(answered, predictions, Source.FALLBACK_MODEL, served, ready.imputed, nans=ready.missing)
        return pending if not answered else calls.without(pending, set(answered))

    def _recall(self, pending: list[int]) -> list[int]:
        """Answer rows by the last answer of their key. Returns the rows without one."""
        if self.known is None:
            return pending
        recalled: dict[tuple[str, int | None], dict[int, Prediction]] = {}
        for row in pending:
            key = self.records[row].key
            memory = None if key is None else self.known.recall(key, self.now_ms / 1000)
            if memory is not None:
                recalled.setdefault((memory.model, memory.version), {})[row] = memory.prediction
        for (model, version), by_row in recalled.items():
            for rows, predictions in _in_columns(by_row):
                self.answered.append(AnsweredRows(rows, predictions, Source.LAST_KNOWN, model, version, {}))
        return calls.without(pending, {row for by_row in recalled.values() for row in by_row})

    def _ask_rule(self, target: str, pending: list[int]) -> list[int]:
        """Answer rows by the user's rule ``target``. Returns the rows that it did not answer.

        A rule is the user's code and may raise anything. An error is counted, and the next link answers the row; so it
        does if the answer has a label that the primary's card does not have.
        """
        rule, output = self.plan.rules[target], self.plan.cards[self.plan.primary].output
        by_row: dict[int, Prediction] = {}
        for row, values in self._rule_values(pending):
            try:
                prediction = from_rule(rule(values))
            except Exception as e:  # noqa: BLE001
                self.rule_errors[target, type(e).__name__] += 1
                continue
            if prediction is None or not _writable(prediction):
                continue
            if label_mistake(prediction.label, output) is not None:
                self.rule_errors[target, UNKNOWN_LABEL] += 1
                continue
            by_row[row] = prediction
        for rows, predictions in _in_columns(by_row):
            self._answer(rows, predictions, Source.RULE, None, self.imputed, name=target)
        return calls.without(pending, by_row)

    def _rule_values(self, pending: Sequence[int]) -> Iterator[tuple[int, dict[str, object]]]:
        """The feature values that a rule is called with, for each row that could be decoded.

        A row that was prepared for the primary has the primary's values, with imputed ones, and None where the model
        gets NaN for a missing value. Any other row has the event's own values, None where a value is unusable: no
        version was loaded, the row is invalid, or the primary is an ensemble, whose members each impute for themselves.
        """
        prepared_rows, prepared = self.prepared
        prepared_index = {row: i for i, row in enumerate(prepared_rows)}
        other = [row for row in pending if row not in prepared_index and row not in self.events.failures]
        plain = self.raw.of(other, self.plan.specs) if other else None
        plain_index = {row: i for i, row in enumerate(other)}
        for row in pending:
            if prepared is not None and row in prepared_index:
                yield row, prepared.row(prepared_index[row]) | dict.fromkeys(self.nans.get(row, ()))
            elif plain is not None and row in plain_index:
                yield row, plain.row(plain_index[row])


def _writable(prediction: Prediction) -> bool:
    """Whether the answer can be written as JSON. If not (a label over 64 bits, half of a surrogate pair), writing it
    would end the worker.
    """
    try:
        wire.dumps(prediction.label)
    except TypeError:
        return False
    return True


def _in_columns(by_row: Mapping[int, Prediction]) -> Iterator[tuple[list[int], Predictions]]:
    """Turn single predictions into columns: rows and their Predictions.

    Predictions with the same number of probabilities and the same further outputs form one group: a rule may give
    probabilities for some rows only, and versions differ in their outputs.
    """
    groups: dict[tuple[int, tuple[str, ...]], dict[int, Prediction]] = {}
    for row, prediction in by_row.items():
        groups.setdefault((len(prediction.probabilities or ()), tuple(prediction.outputs or ())), {})[row] = prediction
    for group in groups.values():
        yield list(group), Predictions.of(list(group.values()))
