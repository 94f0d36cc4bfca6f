"""Creates and verifies a pipeline's topics. The only module that imports aiokafka.admin."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NotCoordinatorForGroupError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from failsoft.topics import growth
from failsoft.topics.connection import diagnosis
from failsoft.topics.connection.causes import PASSING, SILENT
from failsoft.topics.growth import Growth
from failsoft.topics.layout import (
    SINGLE_ROLES,
    Existing,
    Topic,
    Topology,
    Wanted,
    input_max_bytes,
    layout,
    missing,
    problems,
    replay_kept_ms,
)
from failsoft.topics.rights import Grantee, Operation, Resource, Right

log = logging.getLogger(__name__)

BROKER_MAX_BYTES = 1_048_588
"""Kafka's default message.max.bytes, used for an input topic that does not exist yet."""

UNREACHABLE_AFTER = 3.0
"""Seconds for which a command tries again when nothing answers: what a typing mistake costs, and a leader's move."""

REQUEST_MS = 10_000
"""Milliseconds for the answer to a request: a controller may take seconds to create topics."""

CONNECT_WITHIN = 4.0
"""Seconds for the first answers. A server that takes connections and is silent would cost REQUEST_MS."""

RESTARTED_WITHIN = 15.0
"""Seconds for which a starting worker does so. A restarting broker needs about five."""

COORDINATOR_WITHIN = 5.0
"""Seconds to wait for a group's coordinator. A new cluster first creates its offsets topic, and a restarting broker
first loads it."""

_GONE = (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError, TimeoutError)
"""Errors that the client raises when a broker is unreachable, or stops during a request."""

_NO_COORDINATOR = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
"""Errors that the cluster answers while a group has no coordinator that has loaded it."""


class KafkaUnreachable(Exception):
    """No broker answered. Exit code 4."""


KNOWN_WITHIN = 30.0
"""Seconds in which every broker must hear of a topic that another one has listed. It takes some tens of milliseconds,
and seconds on a broker that has just started."""


class TopologyRefused(Exception):
    """Topics are missing, or existing ones would break the promise. Exit code 1. ``problems`` has one line for each."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.problems = tuple(lines)
        super().__init__("\n".join(lines))


class TopicsMissing(TopologyRefused):
    """Topics are missing, and nothing else is wrong."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__([f"{name}: no such topic; create it with: failsoft topics apply" for name in names])


@asynccontextmanager
async def connect(
    connection: Mapping[str, Any], within: float = UNREACHABLE_AFTER
) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client, connected to a cluster with at least one broker in service.

    Raises KafkaUnreachable when no broker answers within ``within`` seconds, or when the brokers stop answering later.
    """
    where = connection["bootstrap_servers"]
    client = AIOKafkaAdminClient(**connection, request_timeout_ms=REQUEST_MS)
    try:
        await _reach(client, connection, time.monotonic() + within)
        yield client
    except _GONE as e:
        raise KafkaUnreachable(f"Kafka at {where} stopped answering: {e or type(e).__name__}") from e
    finally:
        await client.close()


async def check(connection: Mapping[str, Any]) -> None:
    """Raise KafkaUnreachable if something refuses this client that no waiting mends, such as a wrong password."""
    found = await diagnosis.diagnose(connection)
    if found and not any(each.cause in PASSING for each in found):
        raise KafkaUnreachable("\n".join(each.text for each in found))


async def _reach(client: AIOKafkaAdminClient, connection: Mapping[str, Any], deadline: float) -> None:
    """Connect. A cause that passes, such as a broker that restarts, is tried again until ``deadline``, and logged."""
    logged: set[str] = set()
    while True:
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await client.start()
                # A broker that has just started can answer before any broker, including itself, is in service.
                if (await client.describe_cluster())["brokers"]:
                    return
        except _GONE as e:
            cause: Exception | None = e
        else:
            cause = None
        found = [] if cause is None else await diagnosis.diagnose(connection)
        late = time.monotonic() > deadline
        if late or (found and not any(each.cause in PASSING for each in found)):
            where = connection["bootstrap_servers"]
            if not found:
                why = f"{cause or type(cause).__name__}" if cause else "no broker is in service yet"
                raise KafkaUnreachable(f"no Kafka answers at {where}: {why}") from cause
            lines = [f"no Kafka answers at {each.text}" if each.cause in SILENT else each.text for each in found]
            raise KafkaUnreachable("\n".join(lines)) from cause
        for each in found:
            if each.text not in logged:
                logged.add(each.text)
                log.info("trying for %.0f s more: %s", deadline - time.monotonic(), each.text)
        await asyncio.sleep(0.2)


async def describe(client: AIOKafkaAdminClient, wanted: Wanted) -> Topology:
    """The topics that ``wanted`` needs, as required and as they exist."""
    drawn = layout(wanted.names, wanted.inputs, wanted.delays, 1, BROKER_MAX_BYTES, schemas=wanted.schemas)
    existing = await _existing(client, [t.name for t in drawn])
    partitions = growth.widest(drawn, existing) or wanted.partitions
    largest = input_max_bytes(wanted.inputs, existing, BROKER_MAX_BYTES)
    kept = replay_kept_ms(wanted.names, existing)
    topics = layout(wanted.names, wanted.inputs, wanted.delays, partitions, largest, kept, wanted.schemas)
    rungs = [t for t in await client.list_topics() if wanted.names.delay_of(t) is not None]
    return Topology(topics, existing, sorted(set(rungs) - {t.name for t in topics}))


async def verify(
    connection: Mapping[str, Any],
    wanted: Wanted,
    within: float = UNREACHABLE_AFTER,
    unseen: Collection[str] = (),
) -> Topology:
    """The topology, checked. ``unseen`` topics, which the client may not see, need not be there.

    Raises TopologyRefused when topics are wrong, TopicsMissing when they are only missing, or KafkaUnreachable.
    """
    async with connect(connection, within) as client:
        found = await describe(client, wanted)
    absent = TopicsMissing([t.name for t in missing(found.topics, found.existing) if t.name not in unseen])
    if lines := problems(found.topics, found.existing):
        raise TopologyRefused([*absent.problems, *lines])
    if absent.names:
        raise absent
    return found


async def apply(
    connection: Mapping[str, Any], wanted: Wanted, within: float = UNREACHABLE_AFTER
) -> tuple[Topology, list[str]]:
    """Create missing topics and verify existing ones. Returns the topology and the names of the topics created.

    Creates nothing when an existing topic is refused. Concurrent calls are safe. Raises TopologyRefused or
    KafkaUnreachable.
    """
    to = Grantee.of(connection)
    async with connect(connection, within) as client:
        before = await describe(client, wanted)
        lines = _unverified(before, to) + problems(before.topics, before.existing)
        lines += growth.uneven(before.topics, before.existing)
        if lines:
            raise TopologyRefused(lines)
        new = missing(before.topics, before.existing)
        if new:
            await _create(client, new, wanted.replication, to)
            await _wait_until_led(client, [t.name for t in new])
        after = await describe(client, wanted)
        lines = problems(after.topics, after.existing)
        if lines:
            raise TopologyRefused(lines)
    return after, [t.name for t in new]


async def grow(
    connection: Mapping[str, Any], wanted: Wanted, partitions: int, began: Callable[[Growth], None]
) -> tuple[list[str], list[Growth]]:
    """Give each lane topic ``partitions``, in an order that breaks nothing which runs. Returns the topics that were
    created and those that grew; ``began`` is called before each.

    Safe to repeat, also after an interruption. Raises TopologyRefused, also for fewer partitions than a topic has,
    KafkaUnreachable, or aiokafka's error of a broker that refuses.
    """
    async with connect(connection) as client:
        found = await describe(client, wanted)
        lines = [
            *problems(found.topics, found.existing),
            *growth.refusals(found.topics, found.existing, partitions),
        ]
        if lines:
            raise TopologyRefused(lines)
        lanes = [t.name for t in found.topics if t.role not in SINGLE_ROLES]
        new = [replace(t, partitions=partitions) if t.name in lanes else t for t in found.topics]
        new = missing(new, found.existing)
        if new:
            await _create(client, new, wanted.replication, Grantee.of(connection))
            await _wait_until_led(client, [t.name for t in new])
        steps = growth.growths(found.topics, found.existing, partitions)
        for step in steps:
            began(step)
            try:
                await client.create_partitions({step.topic: NewPartitions(partitions)})
            except TopicAuthorizationFailedError:
                mend = Grantee.of(connection).command(Right(Resource.TOPIC, step.topic, Operation.ALTER))
                raise TopologyRefused([f"{step.topic}: you may not grow it; grant it with: {mend}"]) from None
            await _wait_until_led(client, [step.topic], partitions)
    return [t.name for t in new], steps


async def assigned(client: AIOKafkaAdminClient, group: str, topic: str, partition: int) -> str | None:
    """The client id of the member of ``group`` that reads the partition; None when no member does, as in a rebalance.

    Raises one of ``_NO_COORDINATOR`` when the group has no coordinator within COORDINATOR_WITHIN seconds.
    """
    members = await _members(client, group)
    return next((m[1] for m in members if m[4] and (topic, partition) in _partitions(m[4])), None)


async def read_topics(client: AIOKafkaAdminClient, group: str) -> set[str]:
    """The topics that members of ``group`` have partitions of. Waits for a rebalance to end, at most COORDINATOR_WITHIN
    seconds. Raises as ``assigned``.
    """
    deadline = time.monotonic() + COORDINATOR_WITHIN
    while True:
        members = await _members(client, group)
        if all(m[4] for m in members) or time.monotonic() > deadline:
            return {topic for m in members if m[4] for topic, _ in _partitions(m[4])}
        await asyncio.sleep(0.1)


async def _members(client: AIOKafkaAdminClient, group: str) -> Sequence[Any]:
    deadline = time.monotonic() + COORDINATOR_WITHIN
    while True:
        try:
            (response,) = await client.describe_consumer_groups([group])
            code, _, _, _, _, members, *_ = response.groups[0]
            if code:
                raise for_code(code)(group)
            found: Sequence[Any] = members
            return found
        except _NO_COORDINATOR:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def _partitions(assignment: bytes) -> list[tuple[str, int]]:
    return [(topic, p) for topic, ps in ConsumerProtocolMemberAssignment.decode(assignment).assignment for p in ps]


async def offsets_retention_ms(client: AIOKafkaAdminClient) -> int | None:
    """For how long the cluster keeps the offsets of a group without members (milliseconds). None if it does not say, as
    when its settings may not be seen.
    """
    brokers = (await client.describe_cluster())["brokers"]
    node = str(next(iter(brokers))["node_id"])
    for response in await client.describe_configs([ConfigResource(ConfigResourceType.BROKER, node)]):
        for code, _, _, _, entries in response.resources:
            for name, value, *_ in entries if not code else ():
                if name == "offsets.retention.minutes" and value:
                    return 60_000 * int(value)
    return None


async def _existing(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, Existing]:
    """Those of the topics ``names`` that exist. Raises UnknownTopicOrPartitionError after KNOWN_WITHIN seconds."""
    deadline = time.monotonic() + KNOWN_WITHIN
    while True:
        try:
            return await _described(client, names)
        except UnknownTopicOrPartitionError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def _described(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, Existing]:
    """The same, asked once. Each of these requests may go to another broker, which may not know a new topic yet: then
    UnknownTopicOrPartitionError is raised, and never a topic without partitions returned.
    """
    there = set(await client.list_topics()) & set(names)
    if not there:
        return {}
    described = {t["topic"]: len(t["partitions"]) for t in await client.describe_topics(sorted(there))}
    for name in sorted(there):
        if not described.get(name):
            raise UnknownTopicOrPartitionError(f"{name}: a broker does not know its partitions")
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(there)]
    found: dict[str, Existing] = {}
    for response in await client.describe_configs(resources):
        for code, message, _, name, entries in response.resources:
            unreadable = code and for_code(code) is TopicAuthorizationFailedError
            if code and not unreadable:
                raise for_code(code)(f"{name}: {message}")
            configs = {} if unreadable else {entry[0]: entry[1] for entry in entries}
            found[name] = Existing(name, described[name], configs, readable=not unreadable)
    return found


def _unverified(found: Topology, to: Grantee) -> list[str]:
    """A line for each topic whose settings the client may not read: ``apply`` says that all is well, or nothing."""
    unread = (name for name, there in found.existing.items() if not there.readable)
    configs = (Right(Resource.TOPIC, name, Operation.DESCRIBE_CONFIGS) for name in sorted(unread))
    return [f"{right.name}: its settings cannot be verified: {to.refusal(right)}" for right in configs]


async def _create(client: AIOKafkaAdminClient, topics: Sequence[Topic], replication: int | None, to: Grantee) -> None:
    cluster = await client.describe_cluster()
    factor = replication or min(3, len(cluster["brokers"]))
    # With three replicas, two must store a record before it counts: then the loss of one broker loses no answer.
    safe = {"min.insync.replicas": "2"} if factor >= 3 else {}
    new = [NewTopic(t.name, t.partitions, factor, topic_configs={**t.configs, **safe}) for t in topics]
    response = await client.create_topics(new, timeout_ms=30_000)
    refused = []
    for name, code, *rest in response.topic_errors:
        if code and for_code(code) is TopicAuthorizationFailedError:
            refused.append(f"{name}: {to.refusal(Right(Resource.TOPIC, name, Operation.CREATE))}")
        elif code and for_code(code) is not TopicAlreadyExistsError:
            refused.append(f"{name}: not created: {rest[0] if rest and rest[0] else for_code(code).__name__}")
    if refused:
        raise TopologyRefused(refused)


async def _wait_until_led(client: AIOKafkaAdminClient, names: Sequence[str], partitions: int = 1) -> None:
    """Wait until each of at least ``partitions`` has a leader: before that, a first produce fails. Raises KafkaError
    after 30 s.
    """
    deadline = time.monotonic() + 30
    while True:
        described = await client.describe_topics(list(names))
        waiting = [
            t["topic"]
            for t in described
            if t["error_code"]
            or len(t["partitions"]) < partitions
            or any(p["error_code"] or p["leader"] < 0 for p in t["partitions"])
        ]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise KafkaError(f"no leader after 30 s for {', '.join(waiting)}")
        await asyncio.sleep(0.1)
