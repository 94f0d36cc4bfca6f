"""Reports a committed batch: updates the metrics, and logs each failure that changed an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from failsoft.schemas.event import Events, origin_of
from failsoft.schemas.failure import Kind
from failsoft.schemas.record import Record
from failsoft.workers.scoring.plan import Scored
from failsoft.workers.telemetry.logs import FailureLog, FailureRecord, FewLines, trace_id
from failsoft.workers.telemetry.malformed_share import MalformedChange, MalformedShare
from failsoft.workers.telemetry.metric_table import NO_REASON
from failsoft.workers.telemetry.metrics import Metrics
from failsoft.workers.telemetry.unread import UnreadEvents

log = structlog.get_logger("failsoft.report")

LOGGED_PER_KIND = 6
"""The most failures of one kind in a batch that are passed to the failure log, whose rate limit lets fewer through. The
others are only counted."""


class Reporter:
    """Reports the batches of all lanes of a worker.

    Args:
        metrics: the worker's metrics.
        failures: the rate-limited log of failures.
        model: the primary's name.
        wall: the wall clock (epoch seconds).
        clock: the monotonic clock (seconds).
        on_malformed: called when most events of an input topic begin, or cease, to be malformed.

    Attributes:
        unread: the events that wait unanswered for their schemas.
    """

    def __init__(
        self,
        metrics: Metrics,
        failures: FailureLog,
        model: str,
        wall: Callable[[], float],
        clock: Callable[[], float],
        on_malformed: Callable[[MalformedChange], None] = lambda _: None,
    ) -> None:
        self.unread = UnreadEvents()
        self._metrics, self._failures, self._model, self._wall, self._clock = metrics, failures, model, wall, clock
        self._untimed = FewLines(log)
        self._told_format = False
        self._malformed, self._on_malformed = MalformedShare(), on_malformed

    def idle(self) -> None:
        """All lanes wait for records. That counts as progress too."""
        self._metrics.set("failsoft_last_progress_timestamp_seconds", self._wall())

    def transaction(self, seconds: float) -> None:
        """A transaction was committed, which took ``seconds``."""
        self._metrics.observe("failsoft_transaction_seconds", seconds)

    def committed(self, records: Sequence[Record], scored: Scored, arrived: float) -> None:
        """Report a committed batch, whose oldest record was fetched at ``arrived`` (monotonic seconds)."""
        now, m = self._clock(), self._metrics
        done = len(records) - len(scored.held)
        m.observe("failsoft_event_latency_seconds", now - arrived, done)
        m.observe("failsoft_batch_size", done)
        m.set("failsoft_last_progress_timestamp_seconds", self._wall())
        for (topic, outcome), n in scored.outcomes.items():
            m.add("failsoft_events_total", n, topic=topic, outcome=outcome)
        for (source, reason), n in scored.answers.items():
            m.add("failsoft_answers_total", n, source=source, reason=reason or NO_REASON)
        for rung, n in scored.retried.items():
            m.add("failsoft_retries_total", n, rung=rung)
        for kind, n in scored.dead.items():
            m.add("failsoft_dead_total", n, kind=kind)
        for result, n in scored.replayed.items():
            m.add("failsoft_replayed_total", n, result=result)
        for feature, n in scored.imputed.items():
            m.add("failsoft_imputed_total", n, feature=feature)
        for feature, n in scored.nans.items():
            m.add("failsoft_missing_total", n, feature=feature)
        if scored.events.untimed:
            self._unreadable_times(records, scored, now)
        self._watch_malformed(records, scored, now)
        if scored.events.unexpected is not None and not self._told_format:
            self._tell_format(records, scored.events)
        if scored.waiting or scored.attempts:
            self.unread.note(records, scored)
        if scored.failures or scored.missing:
            self._log(records, scored, now)
        for (rule, error), n in scored.rule_errors.items():
            log.warning("a rule raised, or gave an unknown label", rule=rule, error=error, rows=n)

    def _tell_format(self, records: Sequence[Record], events: Events) -> None:
        """Log, once a worker, that events have a format that the pipeline does not expect."""
        self._told_format = True
        row = next(row for row, failure in events.failures.items() if failure.message == events.unexpected)
        record = records[row]
        log.warning(
            "events are not in the pipeline's format; this is logged once, and counted as malformed",
            origin=f"{record.topic}-{record.partition}-{record.offset}",
            message=events.unexpected,
        )

    def _unreadable_times(self, records: Sequence[Record], scored: Scored, now: float) -> None:
        """Count the events whose own time cannot be read, and log one of each topic; ``now`` is monotonic seconds.

        An event is counted once: not when it is held, nor at a retry.
        """
        rows: dict[str, list[int]] = {}
        for row in scored.events.untimed:
            if row not in scored.held and row not in scored.attempts:
                rows.setdefault(records[row].topic, []).append(row)
        for topic, untimed in rows.items():
            self._metrics.add("failsoft_unreadable_times_total", len(untimed), topic=topic)
            row = untimed[0]
            self._untimed.warning(
                "event time unreadable, the record's time is used",
                now,
                event_id=scored.events.ids[row],
                origin=f"{topic}-{records[row].partition}-{records[row].offset}",
                message=scored.events.untimed[row],
                events=len(untimed),
            )

    def _watch_malformed(self, records: Sequence[Record], scored: Scored, now: float) -> None:
        """Count the malformed among the live events; ``now`` is monotonic seconds."""
        events: Counter[str] = Counter()
        for (topic, _), n in scored.outcomes.items():
            events[topic] += n
        for topic in {records[row].topic for row in scored.attempts}:
            del events[topic]
        bad: dict[str, list[int]] = {}
        for row, failure in scored.failures.items() if scored.dead.get(Kind.MALFORMED) else ():
            if failure.kind is Kind.MALFORMED and row not in scored.held and records[row].topic in events:
                bad.setdefault(records[row].topic, []).append(row)
        for topic, n in events.items():
            rows = bad.get(topic, [])
            example = scored.failures[rows[-1]].message if rows else ""
            if change := self._malformed.add(topic, n, min(len(rows), n), example, now):
                self._on_malformed(change)

    def _log(self, records: Sequence[Record], scored: Scored, now: float) -> None:
        """Log the failures of a batch, at most LOGGED_PER_KIND of each kind; ``now`` is monotonic seconds. Events that
        wait unanswered are not among them: ``unread`` says how many they are.
        """
        counts: Counter[str] = Counter()
        lines: list[FailureRecord] = []
        for row, failure in (*scored.failures.items(), *scored.missing.items()):
            if row in scored.waiting:
                continue
            counts[failure.kind] += 1
            if counts[failure.kind] > LOGGED_PER_KIND:
                continue
            record = records[row]
            attempt = scored.attempts.get(row)  # never from the headers: on an input topic anyone may write them
            origin = origin_of(record) if attempt is None else attempt.origin
            lines.append(
                FailureRecord(
                    event_id=scored.events.ids[row],
                    origin=f"{origin.topic}-{origin.partition}-{origin.offset}",
                    model=self._model,
                    version=scored.version,
                    kind=failure.kind,
                    attempt=0 if attempt is None else attempt.number,
                    trace_id=trace_id(dict(record.headers).get("traceparent")),
                    message=failure.message,
                )
            )
        self._failures.failures(lines, now)
        for kind, n in counts.items():
            if n > LOGGED_PER_KIND:
                self._failures.hold(self._model, kind, n - LOGGED_PER_KIND)
