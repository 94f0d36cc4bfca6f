"""What a worker tells of its lanes: lag, waiting retries, lanes that are stopped, topics that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import structlog

from failsoft.schemas.fleet.breaker import Alert
from failsoft.schemas.model_version import SCHEMA_REGISTRY
from failsoft.topics.rights import Grantee, Operation, Resource, Right
from failsoft.workers.kafka.broker_clock import BrokerClock
from failsoft.workers.lanes.assignment import Lanes
from failsoft.workers.lanes.trouble import Cause, LaneTrouble
from failsoft.workers.settings import Settings
from failsoft.workers.telemetry.malformed_share import MalformedChange
from failsoft.workers.telemetry.metrics import Metrics
from failsoft.workers.telemetry.unread import UnreadEvents

log = structlog.get_logger("failsoft.app")


def on_trouble(
    send: Callable[[Alert], None],
    pipeline: Settings,
    worker: str,
    clock: BrokerClock,
    lane: int,
    trouble: LaneTrouble | None,
    before: LaneTrouble | None,
) -> None:
    """Logs and alerts that a lane stopped because of ``trouble``, or that it is past the one ``before``."""
    about = trouble or before
    assert about is not None
    fields = {"lane": lane, "topic": about.tp.topic, "partition": about.tp.partition, "offset": about.offset}
    if trouble is not None:
        log.error("a lane is stopped", cause=trouble.cause, **fields, why=trouble.why, mend=_mend(pipeline, trouble))
    else:
        log.info("a lane goes on", was=about.cause, **fields)
    was, now = (str(each.cause) if each else "running" for each in (before, trouble))
    reason = f"{about.why}; {_mend(pipeline, about)}" if trouble else ""
    key = f"{about.tp.topic}-{about.tp.partition}"
    send(Alert("lane", key, int(clock.earliest() * 1000), was, now, reason[:2_000], worker, about.offset))


def on_malformed(send: Callable[[Alert], None], worker: str, clock: BrokerClock, change: MalformedChange) -> None:
    """Logs and alerts that most events of a topic are malformed, as this worker reads them, or no longer are."""
    fields = {"topic": change.topic, "events": change.events, "malformed": change.malformed}
    if change.on:
        log.error("most events are malformed", **fields, example=change.example)
    else:
        log.info("most events can be read again", **fields)
    was, now = ("readable", "malformed") if change.on else ("malformed", "readable")
    send(Alert("malformed", change.topic, int(clock.earliest() * 1000), was, now, change.text[:2_000], worker))


def _mend(pipeline: Settings, trouble: LaneTrouble) -> str:
    """What mends a trouble; for a missing right, the command with this worker's user and brokers."""
    if trouble.cause is not Cause.NOT_AUTHORIZED:
        return trouble.mend
    right = Right(Resource.TOPIC, trouble.tp.topic, Operation.READ)
    return f"grant it with: {Grantee.of(pipeline.connection()).command(right)}"


def stopped(lanes: Lanes) -> list[tuple[Mapping[str, str], float]]:
    """The series of ``failsoft_lane_stopped``."""
    return [
        ({"topic": t.tp.topic, "lane": str(t.tp.partition), "cause": t.cause}, 1.0) for t in lanes.troubles.values()
    ]


def tell_unread(
    send: Callable[[Alert], None],
    metrics: Metrics,
    unread: UnreadEvents,
    worker: str,
    clock: BrokerClock,
    lanes: Container[int],
    now: float,
) -> None:
    """Counts, logs and alerts events that wait for their schemas; called periodically, at ``now`` (monotonic seconds).
    Never a line an event. ``lanes`` are those of this worker.
    """
    unread.keep(lanes)
    metrics.set("failsoft_unread_events", unread.count)
    news = unread.news(now)
    if news is None:
        return
    if news.count:
        log.warning(
            "events wait unanswered: their schemas are not known, and the registry does not give them",
            events=news.count,
            why=news.reasons,
        )
    else:
        log.info("no event of this worker waits for its schema any more")
    if not (news.count and news.before):
        was, is_ = ("unread" if n else "read" for n in (news.before, news.count))
        at, why = int(clock.earliest() * 1000), "; ".join(news.reasons)[:2_000]
        send(Alert("unread", str(SCHEMA_REGISTRY), at, was, is_, why, worker))


def observe(metrics: Metrics, pipeline: Settings, clock: BrokerClock, lanes: Lanes) -> None:
    """Sets the gauges of lag, and of waiting and overdue retries of each rung; called periodically."""
    behind = dict.fromkeys(pipeline.input.topics, 0)
    for lane in lanes.lanes.values():
        for tp, at in lane.committed.items():
            if tp.topic in behind and tp in lanes.ends:
                behind[tp.topic] += max(0, lanes.ends[tp] - at)
    for topic, records in behind.items():
        metrics.set("failsoft_input_lag", records, topic=topic)
    now_ms = clock.earliest() * 1000
    for name, _ in pipeline.retry.rungs:
        topic = pipeline.names.retry(name)
        waiting = sum(lane.lag(lanes.ends).get(topic, 0) for lane in lanes.lanes.values())
        heads = [due for lane in lanes.lanes.values() if (due := lane.overdue.get(topic)) is not None]
        metrics.set("failsoft_retry_waiting", waiting, rung=name)
        metrics.set("failsoft_retry_overdue_seconds", max(0.0, (now_ms - min(heads, default=now_ms)) / 1000), rung=name)
