"""The six promises of the README on a real Kafka while the primary fails, judged by an independent reader."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.integration.pipeline import Event, Pipeline, body, events, running
from tests.kafka import Broker

ODD_HEADERS = [
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", b"vendor=1"),
    ("own", b"1"),
    ("own", b"2"),
    ("bytes", b"\xff\xfe\x00"),
    ("empty", b""),
    ("absent", None),
    ("failsoft-attempt", b"99"),
    ("failsoft-due-ms", b"1"),
]
"""Headers of the event's own, which must be kept byte for byte, and two forged control headers, which must not."""


def _failing() -> list[Event]:
    """Sixty events that the model never answers (half raise, half are out of range), with unusual keys and headers."""
    failing: list[Event] = []
    for i in range(60):
        value = body(100_000 + i, x=2.0) if i % 2 else body(100_000 + i, row=7)
        key = (None, b"", b"\xff\x00\xfe", b"key")[i % 4]
        failing.append((key, value, ODD_HEADERS if i % 3 else [], i % 4))
    return failing


def test_rows_that_always_fail_are_retried_confirmed_and_buried_once(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A row that the primary never answers gets a provisional answer, each rung when due, a confirmed answer and one
    dead letter; each exactly once.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline) as settlement:
        mixed = [*events(500), *_failing(), *events(500, start=500)]
        pipeline.publish(mixed)
        worker = pipeline.start()
        settlement.wait_final(len(mixed))
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts == Counter({"primary": 1000, "confirmed: bad_output": 30, "confirmed: model_error": 30}), (
        verdict.counts
    )


def test_an_outage_is_bridged_and_then_corrected(kafka: Broker, name: str, tmp_path: Path) -> None:
    """While the primary is down, every event gets a provisional answer; afterwards each gets one correction by it."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, minimum_calls=20)
    with running(pipeline) as settlement:
        pipeline.switch.touch()
        worker = pipeline.start(switched=True)
        pipeline.publish([*events(2000), *((k, v, ODD_HEADERS, p) for k, v, _, p in events(200, start=2000))])
        settlement.wait_answered(pipeline.published)
        assert not [r for r in settlement.reader.records[settlement.scored] if r.header("failsoft-source") == "primary"]
        pipeline.switch.unlink()
        pipeline.publish(events(500, start=3000))
        settlement.wait_final(pipeline.published)
        assert worker.drain() == 0, worker.tail()
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts["corrected"] >= 2200 and verdict.counts.keys() <= {"corrected", "primary"}, verdict.counts
