"""Pure: topics of one pipeline with different numbers of partitions, and the order in which they grow.

Lane i is partition i of each of these topics, and runs only where all of the pipeline's own have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from failsoft.topics.layout import SINGLE_ROLES, Existing, Role, Topic

_ORDER = (Role.SCORED, Role.DEAD, Role.RETRY, Role.REPLAY, Role.INPUT)


@dataclass(frozen=True, slots=True)
class Growth:
    """A topic that gets more partitions.

    Attributes:
        topic: its name.
        role: its role in the pipeline.
        old: the number of partitions now.
        new: the number afterwards.
    """

    topic: str
    role: Role
    old: int
    new: int


def widest(required: Sequence[Topic], existing: Mapping[str, Existing]) -> int | None:
    """The number of partitions of the widest lane topic that exists; None if none does."""
    return max((existing[t.name].partitions for t in _lanes(required) if t.name in existing), default=None)


def uneven(required: Sequence[Topic], existing: Mapping[str, Existing]) -> list[str]:
    """A line for each lane topic that has fewer partitions than another one. Their other lanes run."""
    most = widest(required, existing)
    lines = []
    for topic in _lanes(required):
        there = existing.get(topic.name)
        if there is not None and most is not None and there.partitions < most:
            which = f"lane {most - 1}" if there.partitions == most - 1 else f"lanes {there.partitions} to {most - 1}"
            effect = f"it has no events for {which}" if topic.role is Role.INPUT else f"stopped: {which}"
            # Growing the user's own topic moves keys, also for its other readers.
            new = "if the pipeline has answered nothing yet, give it another name; otherwise "
            lines.append(
                f"{topic.name}: has {there.partitions} partitions, another topic of the pipeline {most}: {effect}; "
                f"{new if topic.role is Role.INPUT else ''}grow all of them with: failsoft topics apply --grow {most}"
            )
    return lines


def refusals(required: Sequence[Topic], existing: Mapping[str, Existing], partitions: int) -> list[str]:
    """Why the topics cannot have ``partitions``: Kafka takes none away."""
    return [
        f"{topic.name}: has {existing[topic.name].partitions} partitions and cannot have fewer: "
        f"--grow takes {widest(required, existing)} or more"
        for topic in _lanes(required)
        if topic.name in existing and existing[topic.name].partitions > partitions
    ]


def growths(required: Sequence[Topic], existing: Mapping[str, Existing], partitions: int) -> list[Growth]:
    """The topics that must grow to have ``partitions``, in an order in which no worker meets a lane that it cannot run.

    A lane is assigned when a topic that is read has its partition. So what is only written comes first, then the rungs,
    the last one first, since each writes to the next, and the inputs last. After an interruption the rest is left.
    """
    topics = sorted(_lanes(required), key=lambda topic: (_ORDER.index(topic.role), -topic.delay))
    return [
        Growth(topic.name, topic.role, existing[topic.name].partitions, partitions)
        for topic in topics
        if topic.name in existing and existing[topic.name].partitions < partitions
    ]


def _lanes(required: Sequence[Topic]) -> Iterator[Topic]:
    return (topic for topic in required if topic.role not in SINGLE_ROLES)
