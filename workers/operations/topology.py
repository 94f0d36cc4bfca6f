"""Creates, verifies and mends the topics of a pipeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failsoft.topics import admin, growth
from failsoft.topics.layout import SettingChange, Topology, Wanted, after_changes, changes, problems
from failsoft.topics.rights import Grantee, Operation, Resource, Right
from failsoft.workers.kafka import topic_settings

SEEN_WITHIN = 30.0
"""Seconds in which every broker must show a changed setting; it takes some tens of milliseconds."""

LOOK_EVERY = 0.1  # seconds between two looks at the settings


@dataclass(frozen=True, slots=True)
class AppliedTopology:
    """What ``apply`` did.

    Attributes:
        topology: the topics as they are now.
        created: names of the topics that were created.
        changed: the settings that were changed.
        refused: why the broker refused a change that no worker needs, by topic.
    """

    topology: Topology
    created: Sequence[str]
    changed: Sequence[SettingChange]
    refused: Mapping[str, str]


async def apply(connection: Mapping[str, Any], wanted: Wanted) -> AppliedTopology:
    """Change the settings that can be changed without harm, create missing topics and verify all.

    Changes and creates nothing when another problem is left. Raises TopologyRefused or KafkaUnreachable.
    """
    async with admin.connect(connection) as client:
        before = await admin.describe(client, wanted)
    planned = changes(before.topics, before.existing)
    left = problems(before.topics, after_changes(before.existing, planned))
    if left := left + growth.uneven(before.topics, before.existing):
        raise admin.TopologyRefused(left)
    by_topic: dict[str, dict[str, str]] = {}
    for change in planned:
        by_topic.setdefault(change.topic, {})[change.key] = change.new
    refused = await topic_settings.alter(connection, by_topic) if by_topic else {}
    needed = {change.topic for change in planned if change.needed}
    to = Grantee.of(connection)
    lines = [
        f"{topic}: max.message.bytes is not changed: {why}; the right is granted with: "
        + to.command(Right(Resource.TOPIC, topic, Operation.ALTER_CONFIGS))
        for topic, why in refused.items()
        if topic in needed
    ]
    if lines:
        raise admin.TopologyRefused(lines)
    made = [change for change in planned if change.topic not in refused]
    await _wait_until_seen(connection, wanted, {change.topic for change in made})
    topology, created = await admin.apply(connection, wanted)
    return AppliedTopology(topology, created, made, refused)


async def _wait_until_seen(connection: Mapping[str, Any], wanted: Wanted, topics: set[str]) -> None:
    """Wait until a broker shows the changed settings of ``topics``; ``admin.apply`` would refuse the old ones."""
    if not topics:
        return
    deadline = time.monotonic() + SEEN_WITHIN
    async with admin.connect(connection) as client:
        while True:
            now = await admin.describe(client, wanted)
            if not any(change.topic in topics for change in changes(now.topics, now.existing)):
                return
            if time.monotonic() > deadline:
                raise admin.TopologyRefused([f"{t}: a broker still shows its old settings" for t in sorted(topics)])
            await asyncio.sleep(LOOK_EVERY)
