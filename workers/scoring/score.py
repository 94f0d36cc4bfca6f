"""Pure: the scoring of one batch, from records to calls of models to verdicts.

``score`` is a generator. It yields each call to a model and receives the result, so the caller does all I/O. It uses no
Kafka, clock or model runtime: the time and the random draws are parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from failsoft.models.answers.imputation import Imputed
from failsoft.models.answers.last_known import LastKnown
from failsoft.schemas.decoding import decode
from failsoft.schemas.event import NO_READERS, Readers
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.prediction import Predictions, Source
from failsoft.schemas.record import Record
from failsoft.topics.ladder import next_rung
from failsoft.workers.scoring import calls, intake
from failsoft.workers.scoring import ensemble as ensembles
from failsoft.workers.scoring.fallbacks import Fallbacks
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Registry, Scored, Served
from failsoft.workers.scoring.poison import PoisonRecord, among, isolate, record_crash, suspected, too_many
from failsoft.workers.scoring.verdicts import AnsweredRows, BatchOutcome, conclude

KINDS_WITHOUT_ANSWER = frozenset({Kind.MALFORMED, Kind.INVALID, Kind.BAD_HEADER})
"""Failures without any answer: the event cannot be read or breaks the card's contract, or its headers are not valid."""


def score(
    records: Sequence[Record],
    plan: Plan,
    registry: Registry,
    known: LastKnown | None,
    now_ms: int,
    u: NDArray[np.float64],
    poison: PoisonRecord | None = None,
    readers: Readers = NO_READERS,
    registry_open: bool = False,
) -> Generator[Call, CallResult, Scored]:
    """Score ``records``: yield the calls to make, receive their results, and return the verdicts.

    Rows in the result's ``held`` have no verdict: the lane reads their records again later.

    Args:
        records: records of one partition index, in offset order within each topic. Records of rungs must be due.
        plan: the pipeline's models, fallback chain and ladder.
        registry: the versions that serve here, and their breakers.
        known: the memory of the fallback ``last_known``, or None.
        now_ms: the wall clock (epoch milliseconds).
        u: one uniform random draw in [0, 1) for each record.
        poison: set if the only record of the batch is poison: no model runs it, and it is dead-lettered.
        readers: the readers of the schemas that the records name.
        registry_open: the breaker of the schema registry is open: a retry whose schema is not known uses no attempt.
    """
    batch = _Batch(records, plan, registry, known, now_ms, u, poison, readers, registry_open)
    yield from batch.ask_primary()
    yield from batch.ask_fallbacks()
    return conclude(batch.outcome())


class _Batch:
    """The state of one batch while it is scored. A row is a record's index in the batch.

    Attributes:
        attempts: the attempt of each row that comes from a rung or from the replay topic.
        failures: why a row has no answer from the primary.
        held: rows that wait: they have no verdict, and the lane reads them again.
        answered: the answers so far, by group of rows.
        version: the primary's version that serves; None if none is loaded, or for an ensemble.
        imputed: the features that were imputed for the primary, by row.
        nans: the features that went to the primary as NaN, by row.
        rule_errors: how often a rule raised an error, by rule and error.
        missing: why an ensemble's member is missing from an answer, by row.
        primary_columns: the rows prepared for the primary, and their feature columns.
        events: the decoded events.
        raw: their features as columns.
        unread: rows that cannot be read, since their schema is not known and the registry does not answer. Not even
            their id can be read, so no fallback answers them.
    """

    def __init__(
        self,
        records: Sequence[Record],
        plan: Plan,
        registry: Registry,
        known: LastKnown | None,
        now_ms: int,
        u: NDArray[np.float64],
        poison: PoisonRecord | None,
        readers: Readers,
        registry_open: bool,
    ) -> None:
        self.records, self.plan, self.registry, self.known = records, plan, registry, known
        self.now_ms, self.u, self.poison, self.registry_open = now_ms, u, poison, registry_open
        self.card = plan.cards[plan.primary]
        self.attempts, self.failures = intake.attempts_of(records, plan, now_ms)
        self.held: set[int] = set()
        self.answered: list[AnsweredRows] = []
        self.version: int | None = None
        self.imputed: Mapping[int, tuple[str, ...]] = {}
        self.nans: Mapping[int, tuple[str, ...]] = {}
        self.rule_errors: Counter[tuple[str, str]] = Counter()
        self.missing: dict[int, Failure] = {}
        self.primary_columns: tuple[list[int], Columns] | None = None
        origins = {row: a.origin for row, a in self.attempts.items()}
        self.events = decode(records, origins, plan.envelope, readers)
        self.raw = calls.RawColumns(self.events.features)
        for row, failure in self.events.failures.items():
            self.failures.setdefault(row, failure)
        self.unread = {row for row in self.events.failures if self.failures[row].kind is Kind.DEPENDENCY}
        if poison is not None:
            poison.mark_poison(self.failures, self.attempts)

    # --- the primary ----------------------------------------------------------------------------------------------

    def ask_primary(self) -> Generator[Call, CallResult, None]:
        """Call the primary, or its members, for the rows that can be read and that its breaker admits."""
        # 1. The rows to run. A row is suspected if its model's process crashed with it in flight.
        served = self.registry.serving(self.plan.primary)
        self.version = None if served is None else served.version
        rows = calls.without(range(len(self.records)), self.failures)
        if not rows:
            return
        deadline = sum(self.plan.cards[model].model.deadline for model in self.plan.asked)
        if waiting := too_many(rows, self.attempts, deadline):
            self._refuse(waiting, Failure(Kind.UNAVAILABLE, "a batch runs only a few suspected records"))
            rows = calls.without(rows, self.held)
        # 2. An ensemble: its members each prepare and admit the rows themselves.
        if self.card.ensemble is not None:
            for part in isolate(rows, self.attempts):
                yield from self._ask_members(calls.without(part, self.held) if self.held else part)
            return
        # 3. No version: the event can still be checked against the card.
        if served is None:
            invalid = calls.invalid(self.raw, rows, self.card)
            self.failures.update(invalid)
            waiting = calls.without(rows, invalid)
            self._refuse(waiting, Failure(Kind.UNAVAILABLE, f"no version of {self.plan.primary} is loaded"))
            return
        # 4. Prepare the feature columns, and ask the breaker.
        rows, ready = self._prepare(rows, served)
        self.imputed, self.nans = ready.imputed, ready.missing
        if not rows:
            return
        admission, granted, refused = calls.admit(self.registry, served.key, rows, self.attempts, self.u)
        if refused:
            self._refuse(refused, Failure(Kind.BREAKER_OPEN, f"the breaker of {served.key} is open"))
            if not granted:
                return
        # 5. Call the model: once for all unsuspected rows, then once for each
        #    suspected one. Report all calls together.
        counts = Counts()
        for part in isolate(granted, self.attempts):
            alone = admission.probe or suspected(part, self.attempts)
            result = yield calls.call(served, among(ready.columns, rows, part), self.card, alone)
            counts += calls.counts(self.card, len(part), result)
            self._take_primary(part, result, served)
        calls.report(self.registry, served.key, admission, counts)
        if admission.probe and self.attempts:
            self._hold_failed_probes(granted)

    def _ask_members(self, rows: list[int]) -> Generator[Call, CallResult, None]:
        """Call the members of an ensemble, and take the answers and failures that they add up to."""
        if not rows:
            return
        result = yield from ensembles.ask(self.plan, self.registry, self.raw, rows, self.attempts, self.u)
        self.answered += result.answered
        self._fail(result.failures)
        self.missing |= result.missing
        self._refuse(result.waiting, Failure(Kind.BREAKER_OPEN, "too few members could be called"))

    def _prepare(self, rows: list[int], served: Served) -> tuple[list[int], Imputed]:
        """Make the primary's feature columns of ``rows``. Rows that break its contract fail as invalid."""
        kept, ready = calls.prepare(self.raw, rows, self.card, served)
        self.failures.update(ready.invalid)
        self.primary_columns = (kept, ready.columns) if kept else None
        return kept, ready

    def _refuse(self, rows: Iterable[int], failure: Failure) -> None:
        """Keep ``rows`` from the primary for now. Live rows fail with ``failure`` and get a fallback's answer; rows of
        the ladder are held, which uses no attempt.

        A rung is read in offset order, so all later rows of the same topic are held too.
        """
        waiting: dict[str, int] = {}
        for row in rows:
            if row in self.attempts:
                topic = self.records[row].topic
                waiting[topic] = min(row, waiting.get(topic, row))
            else:
                self.failures[row] = failure
        if waiting:
            for row, record in enumerate(self.records):
                if row >= waiting.get(record.topic, len(self.records)):
                    self.held.add(row)

    def _hold_failed_probes(self, probes: Sequence[int]) -> None:
        """Hold the waiting retries whose probe failed: the breaker has counted the failure, and no attempt is used.

        After a crash of the model's process nothing is held. A held record is not written, and neither is its crash
        count, so the record would be a probe and crash the process again without end. A probe that crashed while
        an earlier record of its topic is held anyway is counted when it runs in its turn.
        """
        failed = {row: self.failures[row] for row in probes if row in self.failures}
        if any(f.kind in (Kind.CRASHED, Kind.POISON) for f in failed.values()):
            return
        held = [row for row, f in failed.items() if f.trips_breaker and row in self.attempts]
        self._refuse(held, Failure(Kind.BREAKER_OPEN, "its probe failed"))

    def _fail(self, failures: Mapping[int, Failure]) -> None:
        """Record failures by row. A crash is counted in the row's attempt, and the last allowed one makes it poison."""
        for row, failure in failures.items():
            self.failures[row] = record_crash(row, failure, self.attempts) if failure.kind is Kind.CRASHED else failure

    def _take_primary(self, rows: list[int], result: CallResult, served: Served) -> None:
        """Take the answers and failures of one call of the primary for ``rows``."""
        self._fail({rows[i]: failure for i, failure in result.bad.items()})
        if result.predictions is None:
            return
        good = calls.usable(self.card, rows, result, self.failures)
        if len(good) == len(rows):
            self._answer(rows, result.predictions, served)
        elif good:
            kept = result.predictions.take(np.array(good, np.intp))
            self._answer([rows[i] for i in good], kept, served)

    def _answer(self, rows: Sequence[int], predictions: Predictions, served: Served) -> None:
        source = Source.PRIMARY, served.model, served.version
        self.answered.append(AnsweredRows(rows, predictions, *source, self.imputed, missing=self.nans))

    # --- the fallbacks --------------------------------------------------------------------------------------------

    def ask_fallbacks(self) -> Generator[Call, CallResult, None]:
        """Pass the rows that need an answer down the fallback chain. Its last link, ``static``, answers every row."""
        if self.attempts:
            pending = [row for row, failure in self.failures.items() if self._needs_answer(row, failure)]
        else:
            pending = [row for row, failure in self.failures.items() if not self._unanswerable(row, failure)]
        if not pending:
            return
        pending.sort()
        links = self.plan.chain
        if self.poison is not None:
            links = tuple(link for link in links if link.kind in self.poison.links)
        prepared = self.primary_columns or ([], None)
        batch = self.records, self.events, self.raw
        filled = self.imputed, self.nans
        fallbacks = Fallbacks(self.plan, self.registry, self.known, self.now_ms, *batch, prepared, *filled)
        yield from fallbacks.ask(links, pending)
        self.answered += fallbacks.answered
        self.rule_errors = fallbacks.rule_errors

    def _needs_answer(self, row: int, failure: Failure) -> bool:
        """Whether a failed row needs an answer of the fallback chain: it has none yet, or it has a provisional one and
        no rung is left, so that the fallback's answer becomes final.
        """
        attempt = self.attempts.get(row)
        if row in self.held or row in self.unread or failure.kind is Kind.BAD_HEADER:
            return False
        if attempt is None or attempt.next_revision == 0:
            return not self._unanswerable(row, failure)
        if not attempt.provisional:
            return False
        rung = next_rung(attempt.number, failure, self.now_ms, 0.5, self.plan.delays, self.plan.jitter)
        return rung is None

    def _unanswerable(self, row: int, failure: Failure) -> bool:
        """Whether a failed row has no answer at all."""
        return failure.kind in KINDS_WITHOUT_ANSWER or row in self.unread

    def outcome(self) -> BatchOutcome:
        """The state of the batch after all calls, for the verdicts."""
        return BatchOutcome(
            records=self.records,
            plan=self.plan,
            events=self.events,
            attempts=self.attempts,
            failures=self.failures,
            held=self.held,
            answered=self.answered,
            rule_errors=self.rule_errors,
            version=self.version,
            now_ms=self.now_ms,
            u=self.u,
            missing=self.missing,
            deaths=0 if self.poison is None else self.poison.deaths,
            unread=self.unread,
            registry_open=self.registry_open,
        )
