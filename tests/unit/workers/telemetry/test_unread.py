"""Events that wait unanswered for their schemas: counted once each, and said with few lines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from failsoft.schemas.event import Events
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.fleet.breaker import Alert
from failsoft.schemas.model_version import SCHEMA_REGISTRY
from failsoft.workers.process.observation import tell_unread
from failsoft.workers.scoring.plan import Scored
from failsoft.workers.telemetry import unread
from failsoft.workers.telemetry.logs import FailureLog
from failsoft.workers.telemetry.metrics import Metrics
from failsoft.workers.telemetry.report import Reporter
from failsoft.workers.telemetry.unread import SAY_EVERY, UnreadEvents, UnreadNews
from tests.kit import NOW_MS, Rec, attempt, events, waiting

WHY = "schema id 7 is not known"


def batch(records: list[Rec], rows: set[int]) -> Scored:
    """A batch of which ``rows`` wait. Records of a rung have the origin of ``attempt()``."""
    failures = dict.fromkeys(rows, Failure(Kind.DEPENDENCY, WHY))
    attempts = {row: attempt(next_revision=0) for row, r in enumerate(records) if r.headers}
    read = Events(["e"] * len(records), [""] * len(records), [{}] * len(records), failures)
    found = Scored(read, set(), failures, {}, None, attempts)  # type: ignore[arg-type]
    found.waiting = rows
    return found


def test_an_event_is_counted_once_until_it_is_settled() -> None:
    """It goes to its rung again and again. What a former owner put there is counted when it is met."""
    counted = UnreadEvents()
    counted.note(events(3), batch(events(3), {0, 2}))
    for _ in range(3):
        counted.note([waiting()], batch([waiting()], {0}))
    assert counted.count == 3
    counted.note([waiting()], batch([waiting()], set()))
    assert counted.count == 2
    counted.keep([0])
    assert counted.count == 2
    counted.keep([1])
    assert counted.count == 0


def test_the_memory_is_bounded(monkeypatch: Any) -> None:
    """An outage may last a day."""
    monkeypatch.setattr(unread, "MOST", 2)
    counted = UnreadEvents()
    counted.note(events(5), batch(events(5), {0, 1, 2, 3, 4}))
    assert counted.count == 2


def test_it_is_said_at_once_then_seldom_and_at_the_end() -> None:
    """The reasons are those since the last line, each once."""
    counted = UnreadEvents()
    assert counted.news(0.0) is None
    counted.note(events(3), batch(events(3), {0, 2}))
    assert counted.news(1.0) == UnreadNews(2, 0, (WHY,))
    counted.note(events(1, start=9), batch(events(1), {0}))
    assert counted.news(SAY_EVERY) is None
    assert counted.news(1.0 + SAY_EVERY) == UnreadNews(3, 2, (WHY,))
    counted.keep([])
    assert counted.news(2.0 + SAY_EVERY) == UnreadNews(0, 3, ())
    assert counted.news(9 * SAY_EVERY) is None


def test_waiting_events_are_not_in_the_failure_log() -> None:
    """One line tells how many they are; the metric and an alert do too."""
    registry, alerts = CollectorRegistry(), list[Alert]()
    metrics, clock = Metrics(registry), SimpleNamespace(earliest=lambda: NOW_MS / 1000)
    with structlog.testing.capture_logs() as lines:
        reporter = Reporter(metrics, FailureLog(structlog.get_logger("test")), "m", lambda: 0.0, lambda: 10.0)
        reporter.committed(events(100), batch(events(100), set(range(100))), arrived=9.5)
        for now in (0.0, 1.0, SAY_EVERY):
            tell_unread(alerts.append, metrics, reporter.unread, "w", clock, [0], now)  # type: ignore[arg-type]
        assert registry.get_sample_value("failsoft_unread_events") == 100
        tell_unread(alerts.append, metrics, reporter.unread, "w", clock, [], SAY_EVERY)  # type: ignore[arg-type]
    assert [(line["log_level"], line.get("events")) for line in lines] == [
        ("warning", 100),
        ("warning", 100),
        ("info", None),
    ]
    assert [(a.name, a.key, a.from_, a.to, a.reason) for a in alerts] == [
        ("unread", str(SCHEMA_REGISTRY), "read", "unread", WHY),
        ("unread", str(SCHEMA_REGISTRY), "unread", "read", ""),
    ]
