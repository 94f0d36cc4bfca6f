"""The topics that a pipeline needs, and the checks for existing topics that would break its promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from failsoft.schemas.formats.registered import MAX_SCHEMA
from failsoft.topics.names import Names

DAY_MS = 86_400_000

RETRY_KEPT_MS = 14 * DAY_MS
"""Retention of a rung beyond its delay. The ladder waits while a breaker is open; an outage may last over a holiday."""

RETRY_LEAST_MS = DAY_MS
DEAD_KEPT_MS = 30 * DAY_MS
DEAD_LEAST_MS = DAY_MS
SCORED_KEPT_MS = 7 * DAY_MS
"""Kafka's own default, set explicitly. The readers of answers are the user's; the user decides how far they may lag."""

CHANGELOG_SEGMENT_MS = 600_000
"""Ten minutes. Kafka does not compact the segment that it writes to, which lasts a week by default."""

TIMESTAMP_TYPE = "message.timestamp.type"
WRITTEN, APPENDED = "CreateTime", "LogAppendTime"
"""Whose time a topic's records have: the producer's or the broker's.

Records of events have the time at which a worker wrote them, and the event's own in a header. The fleet's own topics
have the broker's time: no worker is refused for its clock there, and the answer to each record that a worker writes
says how far its clock is from the broker's (failsoft.workers.kafka.broker_clock).
"""

HEADROOM = 65_536
"""Bytes by which the pipeline's topics exceed the inputs' record limit. failsoft adds at most 4 KiB of headers, and a
record that is too large to write would crash its worker again and again."""


class Role(StrEnum):
    """The role of a topic in the pipeline."""

    INPUT = "input"
    SCORED = "scored"
    RETRY = "retry"
    DEAD = "dead"
    REPLAY = "replay"
    OUTCOMES = "outcomes"
    CONTROL = "control"
    ALERTS = "alerts"
    CHANGELOG = "changelog"
    SCHEMAS = "schemas"


SINGLE_ROLES = frozenset({Role.OUTCOMES, Role.CONTROL, Role.ALERTS, Role.CHANGELOG, Role.SCHEMAS})
"""The roles of topics with one partition. All others have one for each lane (failsoft.topics.growth)."""

SCHEMA_RECORD = 2 * MAX_SCHEMA + HEADROOM
"""Bytes of a record of the topic of schemas: JSON escapes each quotation mark of a schema."""

_COMPACTED = {
    Role.CHANGELOG: "the fleet loses its state",
    Role.SCHEMAS: "schemas are lost, and events wait while the registry is down",
}
"""What goes wrong where a topic of these roles is not compacted."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the pipeline requires it.

    Attributes:
        name: its name.
        role: its role in the pipeline.
        partitions: required number of partitions.
        configs: topic settings at creation.
        delay: the delay of a rung (seconds); 0 for other topics.
    """

    name: str
    role: Role
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Existing:
    """A topic as it exists in the cluster.

    Attributes:
        name: its name.
        partitions: its number of partitions.
        configs: all its settings, defaults included; none where the client may not read them.
        readable: whether the client may read the settings. Those of an unreadable topic are not verified.
    """

    name: str
    partitions: int
    configs: Mapping[str, str]
    readable: bool = True


def layout(
    names: Names,
    inputs: Sequence[str],
    delays: Sequence[tuple[str, float]],
    partitions: int,
    max_message_bytes: int,
    replay_ms: int = DEAD_KEPT_MS,
    schemas: bool = False,
) -> list[Topic]:
    """Every topic that the pipeline requires.

    ``delays`` are the rungs as (name, seconds). ``partitions`` is P, the number of lanes.
    ``max_message_bytes`` is the largest limit of the inputs. ``replay_ms`` is the retention of the replay topic:
    ``replay_kept_ms`` of a cluster whose dead topic has another retention than the default. ``schemas``: the pipeline
    has a schema registry.
    """
    room = {"max.message.bytes": str(max_message_bytes + HEADROOM)}

    def co(name: str, role: Role, kept_ms: int, delay: float = 0.0) -> Topic:
        configs = {"cleanup.policy": "delete", "retention.ms": str(kept_ms), "retention.bytes": "-1", **room}
        configs[TIMESTAMP_TYPE] = WRITTEN
        return Topic(name, role, partitions, configs, delay)

    def single(name: str, role: Role, **configs: str) -> Topic:
        return Topic(name, role, 1, configs | {TIMESTAMP_TYPE: APPENDED})

    # A table is written several times a second and read completely by each worker that starts, so it is kept short.
    compacted = {
        "cleanup.policy": "compact",
        "segment.ms": str(CHANGELOG_SEGMENT_MS),
        "min.cleanable.dirty.ratio": "0.1",
    }
    kept = {"cleanup.policy": "compact", "max.message.bytes": str(SCHEMA_RECORD)}
    return [
        *(Topic(name, Role.INPUT, partitions) for name in inputs),
        co(names.scored, Role.SCORED, SCORED_KEPT_MS),
        *(co(names.retry(n), Role.RETRY, round(1000 * s) + RETRY_KEPT_MS, s) for n, s in delays),
        co(names.dead, Role.DEAD, DEAD_KEPT_MS),
        co(names.replay, Role.REPLAY, replay_ms),
        single(names.outcomes, Role.OUTCOMES, **{"cleanup.policy": "delete", "retention.ms": str(DAY_MS)}),
        single(names.control, Role.CONTROL, **{"cleanup.policy": "delete", "retention.ms": str(DEAD_KEPT_MS)}),
        single(names.alerts, Role.ALERTS, **{"cleanup.policy": "delete", "retention.ms": str(DEAD_KEPT_MS)}),
        single(names.breakers_changelog, Role.CHANGELOG, **compacted),
        single(names.rollouts_changelog, Role.CHANGELOG, **compacted),
        *([single(names.schemas, Role.SCHEMAS, **kept)] if schemas else []),
    ]


def input_max_bytes(inputs: Sequence[str], existing: Mapping[str, Existing], default: int) -> int:
    """The largest record limit (bytes) of the input topics that exist; ``default`` for none."""
    found = [int(existing[n].configs.get("max.message.bytes", default)) for n in inputs if n in existing]
    return max(found, default=default)


def replay_kept_ms(names: Names, existing: Mapping[str, Existing]) -> int:
    """Retention (ms) for a replay topic to be created: at least that of an existing dead topic. -1 means for ever."""
    dead = existing.get(names.dead)
    kept = _retention(dead) if dead is not None else DEAD_KEPT_MS
    return -1 if kept == float("inf") else max(DEAD_KEPT_MS, int(kept))


def problems(required: Sequence[Topic], existing: Mapping[str, Existing]) -> list[str]:
    """What is wrong with existing topics, and what would be right; one line each. Missing topics are not reported."""
    found: list[str] = []
    for topic in required:
        there = existing.get(topic.name)
        if there is not None:
            found += _topic_problems(topic, there, existing, required)
    return found


def missing(required: Sequence[Topic], existing: Mapping[str, Existing]) -> list[Topic]:
    """The required topics that do not exist yet."""
    return [topic for topic in required if topic.name not in existing]


def _topic_problems(
    topic: Topic, there: Existing, existing: Mapping[str, Existing], required: Sequence[Topic]
) -> list[str]:
    lines: list[str] = []

    def add(text: str) -> None:
        lines.append(f"{topic.name}: {text}")

    if topic.role in SINGLE_ROLES and there.partitions != 1:
        add(f"has {there.partitions} partitions; it must have 1, so that one reader gets all records in order")
    if topic.role is Role.INPUT or not there.readable:
        return lines
    policy = there.configs.get("cleanup.policy", "delete")
    if topic.role in _COMPACTED:
        if policy != "compact":
            add(f"cleanup.policy is {policy!r}; it must be 'compact', or {_COMPACTED[topic.role]}")
        return lines
    if "compact" in policy:
        add(f"cleanup.policy is {policy!r}; it must be 'delete': compaction deletes records that were not read yet")
    if topic.role in (Role.RETRY, Role.DEAD, Role.REPLAY):
        if there.configs.get("retention.bytes", "-1") != "-1":
            add("retention.bytes is set; it must be -1: retention by size deletes records that were not read yet")
        least = RETRY_LEAST_MS + round(1000 * topic.delay) if topic.role is Role.RETRY else DEAD_LEAST_MS
        kept = _retention(there)
        if kept < least:
            add(f"retention.ms is {kept:.0f}; it must be at least {least} ({_days(least)})")
    if topic.role is Role.REPLAY:
        dead = next((existing[t.name] for t in required if t.role is Role.DEAD and t.name in existing), None)
        if dead is not None and dead.readable and _retention(there) < _retention(dead):
            add(f"retention.ms is shorter than that of {dead.name}; raise it, or dead letters may be replayed twice")
    wanted = topic.configs.get("max.message.bytes")
    have = there.configs.get("max.message.bytes")
    if wanted is not None and have is not None and int(have) < int(wanted):
        add(
            f"max.message.bytes is {have}; it must be at least {wanted}: the inputs' limit and room for headers; "
            "raise it with: failsoft topics apply"
        )
    whose = there.configs.get(TIMESTAMP_TYPE, WRITTEN)
    if topic.configs.get(TIMESTAMP_TYPE) == WRITTEN and whose != WRITTEN:
        add(
            f"{TIMESTAMP_TYPE} is {whose!r}; it must be {WRITTEN!r}, or the broker replaces the time at which a record "
            "was written; set it with: kafka-configs.sh --bootstrap-server HOST:PORT --alter --entity-type topics "
            f"--entity-name {topic.name} --add-config {TIMESTAMP_TYPE}={WRITTEN}"
        )
    return lines


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting of an existing topic that ``failsoft topics apply`` changes.

    Attributes:
        topic: the topic's name.
        key: the setting.
        old: its value now.
        new: its value afterwards.
        needed: no worker starts before the change.
    """

    topic: str
    key: str
    old: str
    new: str
    needed: bool


def changes(required: Sequence[Topic], existing: Mapping[str, Existing]) -> list[SettingChange]:
    """The settings that can be changed without harm: a record limit that an input has outgrown, and whose time the
    records of the fleet's own topics have. Everything else in ``problems`` is for an operator to decide.
    """
    found: list[SettingChange] = []
    for topic in required:
        there = existing.get(topic.name)
        if there is None or topic.role is Role.INPUT:
            continue
        have, wanted = there.configs.get("max.message.bytes"), topic.configs.get("max.message.bytes")
        if have is not None and wanted is not None and int(have) < int(wanted):
            found.append(SettingChange(topic.name, "max.message.bytes", have, wanted, needed=True))
        whose = there.configs.get(TIMESTAMP_TYPE, WRITTEN)
        if topic.configs.get(TIMESTAMP_TYPE) == APPENDED and whose != APPENDED:
            found.append(SettingChange(topic.name, TIMESTAMP_TYPE, whose, APPENDED, needed=False))
    return found


def after_changes(existing: Mapping[str, Existing], made: Sequence[SettingChange]) -> dict[str, Existing]:
    """The topics as they are after ``made``."""
    after = dict(existing)
    for change in made:
        there = after[change.topic]
        after[change.topic] = Existing(there.name, there.partitions, {**there.configs, change.key: change.new})
    return after


def _retention(topic: Existing) -> float:
    kept = int(topic.configs.get("retention.ms", "-1"))
    return float("inf") if kept < 0 else kept


def _days(ms: int) -> str:
    return f"{ms / DAY_MS:.3g} days"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The topics that a pipeline needs from its cluster.

    Attributes:
        names: the pipeline's topic names.
        inputs: names of the input topics.
        delays: the rungs as (name, seconds).
        partitions: number of partitions for input topics to be created.
        replication: replicas per topic; None means 3, or one per broker if there are fewer.
        schemas: the pipeline has a schema registry.
    """

    names: Names
    inputs: Sequence[str]
    delays: Sequence[tuple[str, float]]
    partitions: int
    replication: int | None = None
    schemas: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """A pipeline's topics in its cluster.

    Attributes:
        topics: the topics as required.
        existing: the topics as they exist, by name.
        strays: rungs of this pipeline whose delay is no longer configured; no worker reads their records.
    """

    topics: Sequence[Topic]
    existing: Mapping[str, Existing]
    strays: Sequence[str] = ()

    @property
    def partitions(self) -> int:
        """P, the number of lanes: that of partitions of the widest topic."""
        return next(t.partitions for t in self.topics if t.role is Role.INPUT)
