"""Pure: who answered and what failed -> what each answer is called, what is retried, what is dead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.event import Events, iso, origin_of
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions, Source
from failsoft.schemas.record import Header, Record, own_headers
from failsoft.schemas.scored import Answers
from failsoft.topics.ladder import next_rung
from failsoft.topics.routing import AnswerBatch, Dead, Retries
from failsoft.workers.scoring.plan import Plan, Scored

FINAL_GIVEN = 2
"""The next revision of an event whose final answer stands already: only an operator's replay can add to it."""

Class = tuple[Kind | None, int, bool]
"""Reason, revision, final: what answers must share to be written as one group."""


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """Rows that the primary or a link of the chain answered; ``imputed`` is by row of the batch.

    An ensemble's answer has the ``members`` that spoke, as model@version, and the ``reason`` why others did not.
    """

    rows: Sequence[int]
    predictions: Predictions
    source: Source
    model: str | None
    version: int | None
    imputed: Mapping[int, tuple[str, ...]]
    members: tuple[str, ...] | None = None
    reason: Kind | None = None

    @property
    def by_primary(self) -> bool:
        """Is it what the event was meant for? Then it is final, whatever it lacks."""
        return self.source in (Source.PRIMARY, Source.ENSEMBLE)


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """A batch after all models were asked. ``attempts`` has the rows that come from a rung or from replay."""

    records: Sequence[Record]
    plan: Plan
    events: Events
    attempts: Mapping[int, Attempt]
    failures: Mapping[int, Failure]
    held: set[int]
    answered: Sequence[AnsweredRows]
    rule_errors: Counter[tuple[str, str]]
    version: int | None
    now_ms: int
    u: NDArray[np.float64]
    missing: Mapping[int, Failure] = field(default_factory=dict)
    deaths: int = 0  # of workers, with the only record of this batch in flight: it was not tried


def conclude(batch: BatchOutcome) -> Scored:
    """The verdicts of a batch."""
    return _Conclusion(batch).result()


class _Conclusion:
    def __init__(self, batch: BatchOutcome) -> None:
        self.b = batch
        failures = {row: f for row, f in batch.failures.items() if row not in batch.held}
        missing = {row: f for row, f in batch.missing.items() if row not in batch.held}
        self.out = Scored(batch.events, batch.held, failures, batch.rule_errors, batch.version, batch.attempts, missing)
        self.labels: dict[int, str] = {}
        self.final: dict[int, bool] = {}
        self.dead: set[int] = set()

    def result(self) -> Scored:
        for failure, rows in self._fresh().items():
            self._first_time(failure, rows)
        for row, attempt in self.b.attempts.items():
            again = self.out.failures.get(row)
            if again is not None:
                self._again(row, again, attempt)
        for answered in self.b.answered:
            for kind, places in self._classes(answered).items():
                self._give(answered, kind, places)
        self._tally()
        return self.out

    # --- failures ---

    def _fresh(self) -> dict[Failure, list[int]]:
        """The rows that failed for the first time, by what failed. Rows that failed together share one object, and
        comparing identities first spares a hash of its text for each.
        """
        same: dict[int, list[int]] = {}
        attempts = self.b.attempts
        for row, failure in self.out.failures.items():
            if row not in attempts:
                same.setdefault(id(failure), []).append(row)
        equal: dict[Failure, list[int]] = {}
        for rows in same.values():
            equal.setdefault(self.out.failures[rows[0]], []).extend(rows)
        return equal

    def _first_time(self, failure: Failure, rows: list[int]) -> None:
        """Events that failed when they were first read: a group that shares the failure."""
        b, plan = self.b, self.b.plan
        if failure.retried and plan.delays:
            name, delay = plan.delays[0]
            due = b.now_ms + np.rint(1000 * delay * (1 + plan.jitter * (2 * b.u[rows] - 1))).astype(np.int64)
            records = [b.records[row] for row in rows]
            headers = attempts.first_headers(records, due.tolist(), failure, plan.primary, b.version, b.now_ms)
            self._retry(name, rows, headers)
            self.final.update(dict.fromkeys(rows, False))
            return
        self.final.update(dict.fromkeys(rows, True))
        if failure.kind is Kind.LOW_CONFIDENCE:
            return
        unanswered = failure.kind in (Kind.MALFORMED, Kind.INVALID)
        for row in rows:
            origin = origin_of(b.records[row])
            attempt = Attempt(0, origin, b.now_ms, failure, plan.primary, b.version, 0 if unanswered else FINAL_GIVEN)
            self._bury(row, replace(attempt, crashes=1 if failure.kind is Kind.CRASHED else b.deaths))

    def _again(self, row: int, failure: Failure, attempt: Attempt) -> None:
        """An event that failed before, on a rung or as a dead letter, and failed again."""
        b, plan, u = self.b, self.b.plan, float(self.b.u[row])
        self.final[row] = True
        if failure.kind is Kind.LOW_CONFIDENCE:
            self.labels[row] = "unchanged"
            return
        if failure.kind is Kind.BAD_HEADER:
            self._bury(row, attempt)
            return
        rung = next_rung(attempt.number, failure, b.now_ms, u, plan.delays, plan.jitter)
        if rung is not None:
            self.final[row] = False
            self.labels[row] = "retried"
            ahead = replace(
                attempt.failed(failure, plan.primary, b.version, max(1, attempt.next_revision)), due_ms=rung.due_ms
            )
            self._retry(rung.delay, [row], [self._own(row, ahead)])
            return
        unanswered = failure.kind in (Kind.MALFORMED, Kind.INVALID) and attempt.next_revision == 0
        self._bury(row, attempt.failed(failure, plan.primary, b.version, 0 if unanswered else FINAL_GIVEN))

    def _own(self, row: int, attempt: Attempt) -> list[Header]:
        return [*own_headers(self.b.records[row].headers), *attempt.headers()]

    def _retry(self, delay: str, rows: list[int], headers: list[list[Header]]) -> None:
        records = [self.b.records[row] for row in rows]
        self.out.verdicts.retries.append(Retries(delay, records, headers, rows))
        self.out.retried[delay] += len(rows)

    def _bury(self, row: int, attempt: Attempt) -> None:
        self.labels[row] = "dead"
        self.dead.add(row)
        self.out.verdicts.dead.append(Dead(self.b.records[row], attempt))
        self.out.dead[attempt.failure.kind] += 1

    # --- answers ---

    def _classes(self, answered: AnsweredRows) -> dict[Class, list[int]]:
        """The places of ``answered.rows`` by what the answer is called."""
        b = self.b
        primary = answered.by_primary
        if not b.attempts:
            kinds = {answered.reason} if primary else {b.failures[row].kind for row in answered.rows}
            if len(kinds) == 1:  # all of a kind, and first seen now: then they are final or not together
                final = primary or self.final[answered.rows[0]]
                return {(kinds.pop(), 0, final): list(range(len(answered.rows)))}
        found: dict[Class, list[int]] = {}
        for place, row in enumerate(answered.rows):
            if row in b.held:
                continue
            attempt = b.attempts.get(row)
            revision = 0 if attempt is None else attempt.next_revision
            kind: Class = (
                (answered.reason, revision, True) if primary else (b.failures[row].kind, revision, self.final[row])
            )
            found.setdefault(kind, []).append(place)
        return found

    def _give(self, answered: AnsweredRows, kind: Class, places: list[int]) -> None:
        b = self.b
        reason, revision, final = kind
        rows = answered.rows if len(places) == len(answered.rows) else [answered.rows[i] for i in places]
        predictions = answered.predictions
        if len(rows) < len(answered.rows):
            predictions = predictions.take(np.array(places, np.intp))
        records = b.records if len(rows) == len(b.records) else [b.records[row] for row in rows]
        imputed: dict[int, tuple[str, ...]] = {}
        if answered.imputed:
            imputed = {i: answered.imputed[row] for i, row in enumerate(rows) if row in answered.imputed}
            for names in imputed.values():
                self.out.imputed.update(names)
        moved = {i: b.attempts[row].origin for i, row in enumerate(rows) if row in b.attempts} if b.attempts else {}
        topics = [r.topic for r in records]
        offsets = [r.offset for r in records]
        for i, origin in moved.items():
            topics[i], offsets[i] = origin.topic, origin.offset
        answers = Answers(
            source=answered.source,
            model=answered.model,
            version=answered.version,
            reason=reason,
            revision=revision,
            final=final,
            ids=b.events.ids if records is b.records else [b.events.ids[row] for row in rows],
            times=b.events.times if records is b.records else [b.events.times[row] for row in rows],
            predictions=predictions,
            topics=topics,
            partition=records[0].partition,
            offsets=offsets,
            imputed=imputed,
            scored_at=iso(b.now_ms),
            members=answered.members,
        )
        self.out.verdicts.given.append(AnswerBatch(answers, records, rows))
        self.out.answers[answered.source, reason or "none"] += len(rows)
        label = _label(answered, revision, final)
        if label != "answered":
            dead = self.dead if label != "confirmed" else ()
            self.labels.update(dict.fromkeys([row for row in rows if row not in dead] if dead else rows, label))
        if b.plan.remembers and answered.by_primary:
            self.out.known.append(([r.key for r in records], predictions, answered.version))

    # --- counts ---

    def _tally(self) -> None:
        b = self.b
        if not b.held and not b.attempts:
            by_topic = Counter([r.topic for r in b.records])
            other = Counter([(b.records[row].topic, label) for row, label in self.labels.items()])
            for (topic, _), n in other.items():
                by_topic[topic] -= n
            self.out.outcomes.update(other)
            self.out.outcomes.update({(topic, "answered"): n for topic, n in by_topic.items() if n})
            return
        for row, record in enumerate(b.records):
            if row in b.held:
                continue
            label = self.labels.get(row, "answered")
            self.out.outcomes[record.topic, "unchanged" if label == "retried" else label] += 1
            if record.topic == b.plan.replay:
                self.out.replayed[self._replay_result(row, label)] += 1

    def _replay_result(self, row: int, label: str) -> str:
        if row in self.dead:
            return "dead"
        return {"provisional": "retried", "confirmed": "unchanged"}.get(label, label)


def _label(answered: AnsweredRows, revision: int, final: bool) -> str:
    """What an answer is, for ``failsoft_events_total{outcome}``."""
    if revision == 0:
        return "answered" if final else "provisional"
    return "corrected" if answered.by_primary else "confirmed"
