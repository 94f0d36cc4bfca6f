"""Reporting a batch: metrics for the whole batch, and log lines that do not trust the headers of an input topic."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import structlog
from prometheus_client import CollectorRegistry

from failsoft.schemas.record import Header
from failsoft.workers.telemetry.logs import FailureLog
from failsoft.workers.telemetry.malformed_share import LEAST, MalformedChange
from failsoft.workers.telemetry.metrics import Metrics
from failsoft.workers.telemetry.report import LOGGED_PER_KIND, Reporter
from tests.kit import INPUT, NOW_MS, FakeBoard, Rec, attempt, broken, events, failing, run, trio, waiting


def _report(records: list[Rec]) -> tuple[CollectorRegistry, list[structlog.typing.EventDict]]:
    """The metrics and log lines of a batch whose primary fails."""
    registry = CollectorRegistry()
    with structlog.testing.capture_logs() as lines:
        log = FailureLog(structlog.get_logger("test"))
        reporter = Reporter(Metrics(registry), log, "m", lambda: NOW_MS / 1000, lambda: 10.0)
        reporter.committed(records, run(records, models={"m": broken}), arrived=9.5)
    return registry, lines


def test_a_line_names_the_event_and_its_origin() -> None:
    """For a retry the origin is where the event was first read, and the attempt is the number of retries."""
    _, (fresh, again) = _report([*events(1), waiting(number=0)])
    assert (fresh["event_id"], fresh["origin"], fresh["attempt"]) == ("e0", f"{INPUT}-0-0", 0)
    assert (again["event_id"], again["origin"], again["attempt"]) == ("w", f"{INPUT}-0-77", 1)


@pytest.mark.parametrize("value", [None, b"\xff", b"5", b"9" * 5000])
def test_forged_headers_are_ignored_and_cause_no_error(value: bytes | None) -> None:
    """Any producer may write control headers to an input topic, so a live event always has attempt 0."""
    headers: list[Header] = [("failsoft-attempt", value), *attempt(number=3).headers(), ("traceparent", value)]
    _, (line,) = _report([replace(events(1)[0], headers=headers)])
    assert (line["attempt"], line["trace_id"]) == (0, None)


def test_a_member_missing_from_an_answer_is_logged() -> None:
    """The answer is degraded: one line has the event's id, and the member in its message."""
    with structlog.testing.capture_logs() as lines:
        log = FailureLog(structlog.get_logger("test"))
        reporter = Reporter(Metrics(CollectorRegistry()), log, "m", lambda: NOW_MS / 1000, lambda: 10.0)
        registry = FakeBoard(versions={"a": 1, "b": 2, "c": 3})
        records = events(2)
        reporter.committed(records, run(records, trio(), registry, {"b": failing(1)}), arrived=9.5)
    (line,) = lines
    assert (line["event_id"], line["kind"], line["model"]) == ("e1", "model_error", "m")
    assert line["message"].startswith("b@2: ")


def test_a_batch_is_measured_whole() -> None:
    """Events, answers, retries and latency are counted for each record of the batch."""
    registry, _ = _report(events(LOGGED_PER_KIND + 4))
    for name, labels in (
        ("failsoft_events_total", {"topic": INPUT, "outcome": "provisional"}),
        ("failsoft_answers_total", {"source": "static", "reason": "model_error"}),
        ("failsoft_retries_total", {"rung": "5s"}),
        ("failsoft_event_latency_seconds_count", {}),
    ):
        assert registry.get_sample_value(name, labels) == LOGGED_PER_KIND + 4, name


def test_an_unreadable_time_is_counted_and_said() -> None:
    """Once for an event: a retry and a missing time are not counted. One line of a batch has an example."""
    unread = [
        Rec(offset=i, value=json.dumps({"id": f"e{i}", "at": at, "features": {"x": 1}}).encode())
        for i, at in enumerate(["2026-01-01T12:00:00Z", "01/02/2026", "soon", None])
    ]
    retry = waiting(value=b'{"id": "w", "at": "never", "features": {"x": 1}}', offset=9)
    registry, lines = _report([*unread, retry])
    assert registry.get_sample_value("failsoft_unreadable_times_total", {"topic": INPUT}) == 2
    (line,) = [line for line in lines if line["event"].startswith("event time unreadable")]
    assert (line["event_id"], line["origin"], line["events"]) == ("e1", f"{INPUT}-0-1", 2)
    assert line["message"] == "'01/02/2026' is neither ISO 8601 nor an epoch number"


def test_framed_events_in_a_pipeline_of_json_are_said_once() -> None:
    """With an example, its schema's id and the keys to set: once a worker, however many batches have some. Each of
    these events' own failure says it too.
    """
    framed = [Rec(offset=i, value=b"\0\0\0\0\7\4e1") for i in range(3)]
    what = "5 bytes of Confluent framing, schema id 7: set [input] format and [schema_registry] url"
    with structlog.testing.capture_logs() as lines:
        log = FailureLog(structlog.get_logger("test"))
        reporter = Reporter(Metrics(CollectorRegistry()), log, "m", lambda: NOW_MS / 1000, lambda: 10.0)
        for batch in (events(2), [*events(1), *framed], framed):
            done = run(batch)
            assert all(failure.message == what for failure in done.failures.values())
            reporter.committed(batch, done, arrived=9.5)
    (line,) = [line for line in lines if "logged once" in line["event"]]
    assert (line["message"], line["origin"], line["log_level"]) == (what, f"{INPUT}-0-0", "warning")


def test_values_handed_over_as_nan_are_counted() -> None:
    """By feature, apart from the imputed ones."""
    registry = CollectorRegistry()
    reporter = Reporter(Metrics(registry), FailureLog(structlog.get_logger("test")), "m", lambda: 0.0, lambda: 10.0)
    done = run(events(2))
    done.nans.update({"x": 2})
    reporter.committed(events(2), done, arrived=9.5)
    assert registry.get_sample_value("failsoft_missing_total", {"feature": "x"}) == 2


def test_mostly_malformed_input_is_said_once() -> None:
    """Live events alone count, of their own topic; the change has an example of what is wrong."""
    told: list[MalformedChange] = []
    log = FailureLog(structlog.get_logger("test"))
    reporter = Reporter(Metrics(CollectorRegistry()), log, "m", lambda: 0.0, lambda: 10.0, told.append)
    bad = [Rec(offset=i, value=b"\0\0\0\0\x07") for i in range(LEAST)]
    for batch in (events(LEAST - 1), [waiting(offset=100 + i) for i in range(50)], bad, bad):
        reporter.committed(batch, run(batch), arrived=9.5)
    (change,) = told
    assert (change.topic, change.on, change.events, change.malformed) == (INPUT, True, 2 * LEAST - 1, LEAST)
    assert "malformed; one of them: " in change.text and change.example
