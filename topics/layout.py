"""The table of topics that a pipeline needs, and what of the topics that exist would break its promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from failsoft.topics.names import Names

DAY_MS = 86_400_000

RETRY_KEPT_MS = 14 * DAY_MS
"""Beyond a rung's delay. The ladder waits while a breaker is open, and an outage may last over a holiday."""

RETRY_LEAST_MS = DAY_MS
DEAD_KEPT_MS = 30 * DAY_MS
DEAD_LEAST_MS = DAY_MS
SCORED_KEPT_MS = 7 * DAY_MS
"""Kafka's own default, written out: an answer's readers are the user's, and so is how long they may lag."""

CHANGELOG_SEGMENT_MS = 600_000
"""Ten minutes; Kafka compacts no segment that is still written to, by default for a week."""

HEADROOM = 65_536
"""Bytes. We add at most 4 KiB of headers to a record that may already be at its topic's limit; a write that cannot
succeed would crash the worker for ever."""


class Role(StrEnum):
    """What a topic is to the pipeline."""

    INPUT = "input"
    SCORED = "scored"
    RETRY = "retry"
    DEAD = "dead"
    REPLAY = "replay"
    OUTCOMES = "outcomes"
    CONTROL = "control"
    ALERTS = "alerts"
    CHANGELOG = "changelog"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it has to be. ``delay`` (seconds) is a rung's."""

    name: str
    role: Role
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Existing:
    """A topic as the cluster has it; ``configs`` has every setting, defaults too."""

    name: str
    partitions: int
    configs: Mapping[str, str]


def layout(
    names: Names,
    inputs: Sequence[str],
    delays: Sequence[tuple[str, float]],
    partitions: int,
    max_message_bytes: int,
    replay_ms: int = DEAD_KEPT_MS,
) -> list[Topic]:
    """Every topic of the pipeline. ``partitions`` is P, that of the inputs; ``max_message_bytes`` the inputs' largest;
    ``replay_ms`` is ``replay_kept_ms`` of a cluster whose dead letters are kept in another way than ours.

    ``delays`` are (name, seconds).
    """
    room = {"max.message.bytes": str(max_message_bytes + HEADROOM)}

    def co(name: str, role: Role, kept_ms: int, delay: float = 0.0) -> Topic:
        configs = {"cleanup.policy": "delete", "retention.ms": str(kept_ms), "retention.bytes": "-1", **room}
        return Topic(name, role, partitions, configs, delay)

    def single(name: str, role: Role, **configs: str) -> Topic:
        return Topic(name, role, 1, configs)

    # A table that is written several times a second, and read whole by whoever starts: kept short.
    compacted = {
        "cleanup.policy": "compact",
        "segment.ms": str(CHANGELOG_SEGMENT_MS),
        "min.cleanable.dirty.ratio": "0.1",
    }
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
    ]


def input_partitions(inputs: Sequence[str], existing: Mapping[str, Existing]) -> int | None:
    """P, if any input topic exists; ``problems`` says so when they differ."""
    return next((existing[name].partitions for name in inputs if name in existing), None)


def input_max_bytes(inputs: Sequence[str], existing: Mapping[str, Existing], default: int) -> int:
    """The largest record that an input topic may bring."""
    found = [int(existing[n].configs.get("max.message.bytes", default)) for n in inputs if n in existing]
    return max(found, default=default)


def replay_kept_ms(names: Names, existing: Mapping[str, Existing]) -> int:
    """Retention for a ``replay`` still to be created: at least that of the dead letters that exist; -1 is for ever."""
    dead = existing.get(names.dead)
    kept = _retention(dead) if dead is not None else DEAD_KEPT_MS
    return -1 if kept == float("inf") else max(DEAD_KEPT_MS, int(kept))


def problems(required: Sequence[Topic], existing: Mapping[str, Existing]) -> list[str]:
    """What of the existing topics would break the promise; each says what would be right. Missing ones are not here."""
    found: list[str] = []
    for topic in required:
        there = existing.get(topic.name)
        if there is not None:
            found += _topic_problems(topic, there, existing, required)
    return found


def missing(required: Sequence[Topic], existing: Mapping[str, Existing]) -> list[Topic]:
    """What is still to be created."""
    return [topic for topic in required if topic.name not in existing]


def _topic_problems(
    topic: Topic, there: Existing, existing: Mapping[str, Existing], required: Sequence[Topic]
) -> list[str]:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(f"{topic.name}: {text}")

    if there.partitions != topic.partitions:
        if topic.role is Role.INPUT:
            say(f"has {there.partitions} partitions, another input has {topic.partitions}; all inputs need one count")
        elif topic.partitions == 1:
            say(f"has {there.partitions} partitions; it must have 1, for one reader to see all of it in order")
        else:
            say(f"has {there.partitions} partitions; it must have {topic.partitions}, as the inputs have")
    if topic.role is Role.INPUT:
        return said
    policy = there.configs.get("cleanup.policy", "delete")
    if topic.role is Role.CHANGELOG:
        if policy != "compact":
            say(f"cleanup.policy is {policy!r}; it must be 'compact', or the fleet forgets its state")
        return said
    if "compact" in policy:
        say(f"cleanup.policy is {policy!r}; it must be 'delete': compaction drops records that were not read yet")
    if topic.role in (Role.RETRY, Role.DEAD, Role.REPLAY):
        if there.configs.get("retention.bytes", "-1") != "-1":
            say("retention.bytes is set; it must be -1: retention by size deletes records that were not read yet")
        least = RETRY_LEAST_MS + round(1000 * topic.delay) if topic.role is Role.RETRY else DEAD_LEAST_MS
        kept = _retention(there)
        if kept < least:
            say(f"retention.ms is {kept:.0f}; it must be at least {least} ({_days(least)})")
    if topic.role is Role.REPLAY:
        dead = next((existing[t.name] for t in required if t.role is Role.DEAD and t.name in existing), None)
        if dead is not None and _retention(there) < _retention(dead):
            say(f"retention.ms is shorter than that of {dead.name}: what was replayed is read back from here")
    wanted = topic.configs.get("max.message.bytes")
    have = there.configs.get("max.message.bytes")
    if wanted is not None and have is not None and int(have) < int(wanted):
        say(f"max.message.bytes is {have}; it must be at least {wanted}: the inputs' limit and room for our headers")
    return said


def _retention(topic: Existing) -> float:
    kept = int(topic.configs.get("retention.ms", "-1"))
    return float("inf") if kept < 0 else kept


def _days(ms: int) -> str:
    return f"{ms / DAY_MS:.3g} days"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a pipeline asks of its cluster. ``delays`` are (name, seconds); ``partitions`` is for inputs to be created.

    ``replication`` None is 3, or as many as there are brokers.
    """

    names: Names
    inputs: Sequence[str]
    delays: Sequence[tuple[str, float]]
    partitions: int
    replication: int | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """What there is: ``topics`` as they must be, ``existing`` as they are, by name.

    ``strays`` are rungs of this pipeline that no delay names any more: what is left on them nobody reads.
    """

    topics: Sequence[Topic]
    existing: Mapping[str, Existing]
    strays: Sequence[str] = ()

    @property
    def partitions(self) -> int:
        """P."""
        return next(t.partitions for t in self.topics if t.role is Role.INPUT)
