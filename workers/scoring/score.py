"""Pure: a batch of records -> calls to make -> verdicts.

``score`` is a generator: it yields each call to a model and is sent its result, so that whoever drives it owns the
only I/O in the middle. It knows no Kafka, clock or model runtime; ``now`` and random draws are passed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from failsoft.models.answers.imputation import Imputed
from failsoft.models.answers.last_known import LastKnown
from failsoft.models.breaker.window import Counts
from failsoft.schemas.event import decode
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features import Columns
from failsoft.schemas.prediction import Predictions, Source
from failsoft.schemas.record import Record
from failsoft.topics.ladder import next_rung
from failsoft.workers.scoring import calls, intake
from failsoft.workers.scoring import ensemble as quorum
from failsoft.workers.scoring.fallbacks import Fallbacks
from failsoft.workers.scoring.plan import Call, CallResult, Plan, Registry, Scored, Served
from failsoft.workers.scoring.poison import PoisonRecord, among, isolate, record_crash, too_many
from failsoft.workers.scoring.verdicts import AnsweredRows, BatchOutcome, conclude

UNANSWERED = frozenset({Kind.MALFORMED, Kind.INVALID, Kind.BAD_HEADER})
"""What nobody answers: the event cannot be read, or the record is not believed."""


def score(
    records: Sequence[Record],
    plan: Plan,
    registry: Registry,
    known: LastKnown | None,
    now_ms: int,
    u: NDArray[np.float64],
    poison: PoisonRecord | None = None,
) -> Generator[Call, CallResult, Scored]:
    """Score ``records``, all of one partition index. ``u`` holds a draw in [0, 1) for each record; with ``poison``
    there is only one, and it is not tried.

    Records of rungs must be due. Rows in the result's ``held`` have no verdict: they are to be read again later.
    """
    batch = _Batch(records, plan, registry, known, now_ms, u, poison)
    yield from batch.ask_primary()
    yield from batch.ask_fallbacks()
    return conclude(batch.outcome())


class _Batch:
    """The state of one batch on its way: who answered which rows, what failed, what waits."""

    def __init__(
        self,
        records: Sequence[Record],
        plan: Plan,
        registry: Registry,
        known: LastKnown | None,
        now_ms: int,
        u: NDArray[np.float64],
        poison: PoisonRecord | None,
    ) -> None:
        self.records, self.plan, self.registry, self.known = records, plan, registry, known
        self.now_ms, self.u, self.poison = now_ms, u, poison
        self.card = plan.cards[plan.primary]
        self.attempts, self.failures = intake.attempts_of(records, plan, now_ms)
        self.held: set[int] = set()
        self.answered: list[AnsweredRows] = []
        self.version: int | None = None
        self.imputed: Mapping[int, tuple[str, ...]] = {}
        self.rule_errors: Counter[tuple[str, str]] = Counter()
        self.missing: dict[int, Failure] = {}
        self.primary_columns: tuple[list[int], Columns] | None = None
        origins = {row: a.origin for row, a in self.attempts.items()}
        self.events = decode(records, origins, plan.envelope)
        for row, failure in self.events.failures.items():
            self.failures.setdefault(row, failure)
        if poison is not None:
            poison.mark_poison(self.failures, self.attempts)

    # --- the primary ----------------------------------------------------------------------------------------------

    def ask_primary(self) -> Generator[Call, CallResult, None]:
        served = self.registry.serving(self.plan.primary)
        self.version = None if served is None else served.version
        rows = calls.without(range(len(self.records)), self.failures)
        if not rows:
            return
        deadline = sum(self.plan.cards[model].model.deadline for model in self.plan.asked)
        if waiting := too_many(rows, self.attempts, deadline):
            self._refuse(waiting, Failure(Kind.UNAVAILABLE, "suspects are tried a few at a time"))
            rows = calls.without(rows, self.held)
        if self.card.ensemble is not None:
            for part in isolate(rows, self.attempts):
                yield from self._ask_members(calls.without(part, self.held) if self.held else part)
            return
        if served is None:
            invalid = calls.invalid(self.events.features, rows, self.card)
            self.failures.update(invalid)
            waiting = calls.without(rows, invalid)
            self._refuse(waiting, Failure(Kind.UNAVAILABLE, f"no version of {self.plan.primary} is loaded"))
            return
        rows, ready = self._prepare(rows, served)
        self.imputed = ready.imputed
        if not rows:
            return
        admission, granted, refused = calls.admit(self.registry, served.key, rows, self.attempts, self.u)
        if refused:
            self._refuse(refused, Failure(Kind.BREAKER_OPEN, f"the breaker of {served.key} is open"))
            if not granted:
                return
        counts = Counts()
        for part in isolate(granted, self.attempts):
            result = yield calls.call(served, among(ready.columns, rows, part), self.card)
            counts += calls.counts(self.card, len(part), result)
            self._take_primary(part, result, served)
        calls.report(self.registry, served.key, admission, counts)
        if admission.probe and self.attempts:
            self._hold_failed_probes(granted)

    def _ask_members(self, rows: list[int]) -> Generator[Call, CallResult, None]:
        """An ensemble: what its members say together, and what becomes of the rows of which too few spoke."""
        if not rows:
            return
        result = yield from quorum.ask(self.plan, self.registry, self.events.features, rows, self.attempts, self.u)
        self.answered += result.answered
        self._fail(result.failures)
        self.missing |= result.missing
        self._refuse(result.waiting, Failure(Kind.BREAKER_OPEN, "too few members are asked"))

    def _prepare(self, rows: list[int], served: Served) -> tuple[list[int], Imputed]:
        """Feature columns of ``rows`` for the primary; the rows that break its contract fail."""
        kept, ready = calls.prepare(self.events.features, rows, self.card, served)
        self.failures.update(ready.invalid)
        self.primary_columns = (kept, ready.columns) if kept else None
        return kept, ready

    def _refuse(self, rows: Iterable[int], failure: Failure) -> None:
        """Rows that the primary will not see now: live ones get a fallback, the ladder waits and burns no attempt.

        A rung is read in order, so what is behind a waiting record of its topic waits too.
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
        """Waiting retries that were probes, and failed: the breaker learned from them, and they wait as before. Not
        when one killed its model's process: who waits, or stands behind one that does, is not written, nor its count
        (one that was drawn from behind others is counted when its turn comes).
        """
        failed = {row: self.failures[row] for row in probes if row in self.failures}
        if any(f.kind in (Kind.CRASHED, Kind.POISON) for f in failed.values()):
            return
        spared = [row for row, f in failed.items() if f.trips_breaker and row in self.attempts]
        self._refuse(spared, Failure(Kind.BREAKER_OPEN, "its probe failed"))

    def _fail(self, failures: Mapping[int, Failure]) -> None:
        for row, failure in failures.items():
            self.failures[row] = record_crash(row, failure, self.attempts) if failure.kind is Kind.CRASHED else failure

    def _take_primary(self, rows: list[int], result: CallResult, served: Served) -> None:
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
        given = AnsweredRows(rows, predictions, Source.PRIMARY, served.model, served.version, self.imputed)
        self.answered.append(given)

    # --- the fallbacks --------------------------------------------------------------------------------------------

    def ask_fallbacks(self) -> Generator[Call, CallResult, None]:
        """Walk the chain with the rows that need an answer; its last link, ``static``, always gives one."""
        if self.attempts:
            pending = [row for row, failure in self.failures.items() if self._needs_answer(row, failure)]
        else:
            pending = [row for row, failure in self.failures.items() if failure.kind not in UNANSWERED]
        pending.sort()
        links = self.plan.chain
        if self.poison is not None:
            links = tuple(link for link in links if link.kind in self.poison.links)
        prepared = self.primary_columns or ([], None)
        fallbacks = Fallbacks(
            self.plan, self.registry, self.known, self.now_ms, self.records, self.events, prepared, self.imputed
        )
        yield from fallbacks.ask(links, pending)
        self.answered += fallbacks.answered
        self.rule_errors = fallbacks.rule_errors

    def _needs_answer(self, row: int, failure: Failure) -> bool:
        attempt = self.attempts.get(row)
        if row in self.held or failure.kind is Kind.BAD_HEADER:
            return False
        if attempt is None or attempt.next_revision == 0:
            return failure.kind not in UNANSWERED
        if not attempt.provisional:
            return False
        rung = next_rung(attempt.number, failure, self.now_ms, 0.5, self.plan.delays, self.plan.jitter)
        return rung is None

    def outcome(self) -> BatchOutcome:
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
        )
