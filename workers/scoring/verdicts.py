"""Pure: decides the verdicts of a batch: each answer's revision and finality, each retry, each dead letter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
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
from failsoft.topics.ladder import MOST_ON_THE_SAME, next_rung, same_rung, wait_ms
from failsoft.topics.routing import AnswerBatch, Dead, Retries
from failsoft.workers.scoring.plan import Plan, Scored

AFTER_FINAL = 2
"""The next revision of an event that has its final answer. Only an operator's replay can still add an answer."""

Class = tuple[Kind | None, int, bool, str | None]
"""(reason, revision, final, rewind): answers that share these are written as one group."""


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """Rows that the primary or one link of the fallback chain answered.

    Attributes:
        rows: rows of the batch.
        predictions: one prediction for each of ``rows``.
        source: the kind of model or link that answered.
        model: the name of the model or rule; None for ``static``.
        version: the model's version; None for an ensemble, a rule or ``static``.
        imputed: the names of imputed features, by row of the batch.
        members: of an ensemble: the members that answered, as ``model@version``.
        reason: of an ensemble: the failure kind of the first member that is missing; None if none is.
        missing: the names of the features that went to the model as NaN, by row of the batch.
    """

    rows: Sequence[int]
    predictions: Predictions
    source: Source
    model: str | None
    version: int | None
    imputed: Mapping[int, tuple[str, ...]]
    members: tuple[str, ...] | None = None
    reason: Kind | None = None
    missing: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def by_primary(self) -> bool:
        """Whether the primary (a model or an ensemble) answered. Such an answer is final, even with members missing."""
        return self.source in (Source.PRIMARY, Source.ENSEMBLE)


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """A batch after all calls. A row is a record's index in the batch.

    Attributes:
        records: the records of the batch.
        plan: the pipeline's models, fallback chain and ladder.
        events: the decoded events.
        attempts: the attempt of each row that comes from a rung or from the replay topic.
        failures: why the primary gave no answer, by row.
        held: rows that get no verdict.
        answered: the answers of the primary and of the fallback chain.
        rule_errors: errors that rules raised, by rule and name of the error.
        version: the primary's version, or None.
        now_ms: the wall clock (epoch milliseconds).
        u: one random draw in [0, 1) for each row.
        missing: the failure of a member that is missing from an ensemble's answer, by row.
        deaths: worker crashes with the batch's only record in flight, if it is poison and was not run; else 0.
        unread: rows that cannot be read, since their schema is not known and the registry does not answer.
        registry_open: the breaker of the schema registry is open.
    """

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
    deaths: int = 0
    unread: Set[int] = field(default_factory=frozenset)
    registry_open: bool = False


def conclude(batch: BatchOutcome) -> Scored:
    """Decide the verdicts of a batch, and count them for the metrics."""
    return _Conclusion(batch).result()


class _Conclusion:
    """Builds the verdicts of a batch.

    Attributes:
        labels: the ``outcome`` label of ``failsoft_events_total``, by row; a row without one is "answered".
        final: whether a fallback's answer is final, by row that failed.
        dead: rows that go to the dead letters.
        together: how many retries cannot be read.
    """

    def __init__(self, batch: BatchOutcome) -> None:
        self.b = batch
        ignored = _tombstones(batch) if batch.plan.ignores_tombstones else set[int]()
        failures = {row: f for row, f in batch.failures.items() if row not in batch.held and row not in ignored}
        missing = {row: f for row, f in batch.missing.items() if row not in batch.held}
        self.out = Scored(batch.events, batch.held, failures, batch.rule_errors, batch.version, batch.attempts, missing)
        self.together = sum(row in batch.attempts and row not in batch.held for row in batch.unread)
        self.labels: dict[int, str] = dict.fromkeys(ignored, "ignored")
        self.final: dict[int, bool] = {}
        self.dead: set[int] = set()

    def result(self) -> Scored:
        # Failures come first: they decide whether a fallback's answer is provisional or final.
        for (failure, unread), rows in self._first_failures().items():
            self._failed_first(failure, rows, unread)
        for row, attempt in self.b.attempts.items():
            next_failure = self.out.failures.get(row)
            if next_failure is not None:
                self._failed_again(row, next_failure, attempt)
        for answered in self.b.answered:
            for kind, indexes in self._classes(answered).items():
                self._add_answers(answered, kind, indexes)
        self._count()
        return self.out

    # --- failures ---

    def _first_failures(self) -> dict[tuple[Failure, bool], list[int]]:
        """The rows that failed when they were first read, by failure and by whether they cannot be read.

        Rows that failed together share one Failure object. Grouping by identity first avoids hashing its message once
        for each row. Rows that cannot be read never share it with others.
        """
        same: dict[int, list[int]] = {}
        attempts = self.b.attempts
        for row, failure in self.out.failures.items():
            if row not in attempts:
                same.setdefault(id(failure), []).append(row)
        equal: dict[tuple[Failure, bool], list[int]] = {}
        for rows in same.values():
            equal.setdefault((self.out.failures[rows[0]], rows[0] in self.b.unread), []).extend(rows)
        return equal

    def _failed_first(self, failure: Failure, rows: list[int], unread: bool) -> None:
        """Verdicts of events that failed when they were first read and share ``failure``: retries on the first rung, or
        dead letters. An event of low confidence gets neither: the fallback's answer is final. ``unread`` events have no
        answer.
        """
        b, plan = self.b, self.b.plan
        if failure.retried and plan.delays:
            name, delay = plan.delays[0]
            due = b.now_ms + np.rint(wait_ms(delay, plan.jitter, b.u[rows])).astype(np.int64)
            records = [b.records[row] for row in rows]
            revision, version = (0, None) if unread else (1, b.version)
            headers = attempts.first_headers(records, due.tolist(), failure, plan.primary, version, b.now_ms, revision)
            self._retry(name, rows, headers)
            self.final.update(dict.fromkeys(rows, False))
            if unread:
                self.labels.update(dict.fromkeys(rows, "waiting"))
                self.out.waiting.update(rows)
            return
        self.final.update(dict.fromkeys(rows, True))
        if failure.kind is Kind.LOW_CONFIDENCE:
            return
        unanswered = unread or failure.kind in (Kind.MALFORMED, Kind.INVALID)
        for row in rows:
            origin = origin_of(b.records[row])
            attempt = Attempt(0, origin, b.now_ms, failure, plan.primary, b.version, 0 if unanswered else AFTER_FINAL)
            self._dead_letter(row, replace(attempt, crashes=1 if failure.kind is Kind.CRASHED else b.deaths))

    def _failed_again(self, row: int, failure: Failure, attempt: Attempt) -> None:
        """The verdict of an event from a rung or from the replay topic that failed again: a retry on the next rung, or
        a dead letter. An event of low confidence gets neither: the fallback's answer is final.
        """
        b, plan, u = self.b, self.b.plan, float(self.b.u[row])
        self.final[row] = True
        if failure.kind is Kind.LOW_CONFIDENCE:
            self.labels[row] = "unchanged"
            return
        if failure.kind is Kind.BAD_HEADER:
            self._dead_letter(row, attempt)
            return
        if row in b.unread:
            self._unread_again(row, failure, attempt)
            return
        rung = next_rung(attempt.number, failure, b.now_ms, u, plan.delays, plan.jitter)
        if rung is not None:
            self.final[row] = False
            self.labels[row] = "retried"
            next_attempt = replace(
                attempt.failed(failure, plan.primary, b.version, max(1, attempt.next_revision)), due_ms=rung.due_ms
            )
            self._retry(rung.delay, [row], [self._headers(row, next_attempt)])
            return
        unanswered = failure.kind in (Kind.MALFORMED, Kind.INVALID) and attempt.next_revision == 0
        self._dead_letter(row, attempt.failed(failure, plan.primary, b.version, 0 if unanswered else AFTER_FINAL))

    def _unread_again(self, row: int, failure: Failure, attempt: Attempt) -> None:
        """The verdict of an event from a rung or from the replay topic that still cannot be read. It has no answer, and
        gets none. While the breaker of the registry is open, it goes to its rung again and no attempt is used. So it
        does where it was not its turn to be asked for; but of very many schemas that nobody has, each must end.
        """
        b, plan, u = self.b, self.b.plan, float(self.b.u[row])
        failed = attempt.failed(failure, plan.primary, None, attempt.next_revision)
        index = list(plan.rungs).index(b.records[row].topic) if b.records[row].topic in plan.rungs else None
        spared = b.registry_open or (not failure.attempted and self.together <= MOST_ON_THE_SAME)
        if spared and index is not None:
            rung = same_rung(index, self.together, b.now_ms, u, plan.delays, plan.jitter)
            failed = replace(failed, number=attempt.number - 1)
        else:
            next_one = next_rung(attempt.number, failure, b.now_ms, u, plan.delays, plan.jitter)
            if next_one is None:
                self._dead_letter(row, failed)
                return
            rung = next_one
        self.labels[row] = "retried"
        self.out.waiting.add(row)
        self._retry(rung.delay, [row], [self._headers(row, replace(failed, due_ms=rung.due_ms))])

    def _headers(self, row: int, attempt: Attempt) -> list[Header]:
        """The event's own headers, then the control headers of ``attempt``."""
        return [*own_headers(self.b.records[row].headers), *attempt.headers()]

    def _retry(self, delay: str, rows: list[int], headers: list[list[Header]]) -> None:
        records = [self.b.records[row] for row in rows]
        self.out.verdicts.retries.append(Retries(delay, records, headers, rows))
        self.out.retried[delay] += len(rows)

    def _dead_letter(self, row: int, attempt: Attempt) -> None:
        self.labels[row] = "dead"
        self.dead.add(row)
        self.out.verdicts.dead.append(Dead(self.b.records[row], replace(attempt, died_ms=self.b.now_ms)))
        self.out.dead[attempt.failure.kind] += 1

    # --- answers ---

    def _classes(self, answered: AnsweredRows) -> dict[Class, list[int]]:
        """Group the rows of ``answered``: for each class, the indexes in ``answered.rows``. Held rows are left out."""
        b = self.b
        primary = answered.by_primary
        if not b.attempts:
            kinds = {answered.reason} if primary else {b.failures[row].kind for row in answered.rows}
            # One reason for all rows, all read for the first time: then all are final or all are provisional.
            if len(kinds) == 1:
                final = primary or self.final[answered.rows[0]]
                return {(kinds.pop(), 0, final, None): list(range(len(answered.rows)))}
        classes: dict[Class, list[int]] = {}
        for index, row in enumerate(answered.rows):
            if row in b.held:
                continue
            attempt = b.attempts.get(row)
            revision, rewind = (0, None) if attempt is None else (attempt.next_revision, attempt.rewind)
            reason, final = (answered.reason, True) if primary else (b.failures[row].kind, self.final[row])
            kind: Class = reason, revision, final, rewind
            classes.setdefault(kind, []).append(index)
        return classes

    def _add_answers(self, answered: AnsweredRows, kind: Class, indexes: list[int]) -> None:
        """Add the answers of one class: the rows at ``indexes`` of ``answered``."""
        b = self.b
        reason, revision, final, rewind = kind
        rows = answered.rows if len(indexes) == len(answered.rows) else [answered.rows[i] for i in indexes]
        predictions = answered.predictions
        if len(rows) < len(answered.rows):
            predictions = predictions.take(np.array(indexes, np.intp))
        records = b.records if len(rows) == len(b.records) else [b.records[row] for row in rows]
        imputed = _counted(answered.imputed, rows, self.out.imputed)
        missing = _counted(answered.missing, rows, self.out.nans)
        origins = {i: b.attempts[row].origin for i, row in enumerate(rows) if row in b.attempts} if b.attempts else {}
        topics = [r.topic for r in records]
        offsets = [r.offset for r in records]
        for i, origin in origins.items():
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
            rewind=rewind,
            missing=missing,
        )
        self.out.verdicts.answered.append(AnswerBatch(answers, records, rows))
        self.out.answers[answered.source, reason or "none"] += len(rows)
        label = _label(answered, revision, final)
        if label != "answered":
            dead = self.dead if label != "confirmed" else ()
            self.labels.update(dict.fromkeys([row for row in rows if row not in dead] if dead else rows, label))
        if b.plan.remembers and answered.by_primary:
            self.out.known.append(([r.key for r in records], predictions, answered.version))

    # --- counts ---

    def _count(self) -> None:
        """Count the outcome of each record, and the result of each replayed one."""
        b = self.b
        if not b.held and not b.attempts:
            # The usual batch: nearly every row is "answered", so only the others are counted one by one.
            by_topic, outcomes = Counter([r.topic for r in b.records]), self.out.outcomes
            for row, label in self.labels.items():
                topic = b.records[row].topic
                by_topic[topic] -= 1
                outcomes[topic, label] += 1
            for topic, n in by_topic.items():
                if n:
                    outcomes[topic, "answered"] += n
            return
        for row, record in enumerate(b.records):
            if row in b.held:
                continue
            label = self.labels.get(row, "answered")
            self.out.outcomes[record.topic, "unchanged" if label == "retried" else label] += 1
            if record.topic == b.plan.replay:
                self.out.replayed[self._replay_result(row, label)] += 1

    def _replay_result(self, row: int, label: str) -> str:
        """The ``result`` label of ``failsoft_replayed_total``."""
        if row in self.dead:
            return "dead"
        return {"provisional": "retried", "confirmed": "unchanged"}.get(label, label)


def _tombstones(batch: BatchOutcome) -> set[int]:
    """The rows of input topics that have no value, and failed only because of that."""
    return {
        row
        for row, failure in batch.failures.items()
        if failure.kind is Kind.MALFORMED and batch.records[row].value is None and row not in batch.attempts
    }


def _counted(
    by_row: Mapping[int, tuple[str, ...]], rows: Sequence[int], counts: Counter[str]
) -> dict[int, tuple[str, ...]]:
    """The features of ``rows``, by index in it, each counted in ``counts``; ``by_row`` has them by row of the batch."""
    if not by_row:
        return {}
    found = {i: by_row[row] for i, row in enumerate(rows) if row in by_row}
    for names in found.values():
        counts.update(names)
    return found


def _label(answered: AnsweredRows, revision: int, final: bool) -> str:
    """The ``outcome`` label of ``failsoft_events_total`` for an answer."""
    if revision == 0:
        return "answered" if final else "provisional"
    return "corrected" if answered.by_primary else "confirmed"
