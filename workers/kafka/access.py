"""Asks the brokers what this client may do, and tells which of a command's rights it lacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from failsoft.topics.admin import TopologyRefused
from failsoft.topics.layout import layout
from failsoft.topics.rights import Grantee, NotAuthorised, Operation, Resource, Right, Use, Without, rights
from failsoft.workers.kafka.access_protocol import DescribeGroupsRequest_v3, MetadataRequest_v8, allowed
from failsoft.workers.kafka.request_errors import Code
from failsoft.workers.kafka.request_loop import CoordinatorKind, RequestLoop, RequestRefused
from failsoft.workers.kafka.requests import OneVersion
from failsoft.workers.kafka.topic_reader import NoSuchTopic
from failsoft.workers.settings import Settings

log = logging.getLogger(__name__)

WITHIN = 10.0
"""Seconds for all questions. What is not answered by then counts as allowed: the work itself will tell."""

REQUEST_TIMEOUT_MS = 5_000

UNAUTHORISED = (
    Code.TOPIC_AUTHORIZATION_FAILED,
    Code.GROUP_AUTHORIZATION_FAILED,
    Code.CLUSTER_AUTHORIZATION_FAILED,
    Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)

_ERRORS: dict[type[Exception], Code] = {
    TopicAuthorizationFailedError: Code.TOPIC_AUTHORIZATION_FAILED,
    GroupAuthorizationFailedError: Code.GROUP_AUTHORIZATION_FAILED,
    ClusterAuthorizationFailedError: Code.CLUSTER_AUTHORIZATION_FAILED,
    TransactionalIdAuthorizationFailed: Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}

_OF_CODE = {
    Code.GROUP_AUTHORIZATION_FAILED: Resource.GROUP,
    Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Resource.TRANSACTIONAL_ID,
}

_UNSEEN = frozenset({Operation.DESCRIBE_CONFIGS})
"""What a client may do with a topic that it may not see. Read and Write include Describe, so it has neither; whether it
may read the settings is not known, and counts as allowed."""

IDEMPOTENT_WRITE = Right(Resource.CLUSTER, "", Operation.IDEMPOTENT_WRITE)
"""What brokers before 2.8 ask of an idempotent producer without transactions. Newer ones ask for Write on any topic."""


def needed(pipeline: Settings, use: Use) -> list[Right]:
    """The rights that ``use`` needs for this pipeline."""
    registry = pipeline.schema_registry.url is not None
    topics = layout(pipeline.names, pipeline.input.topics, pipeline.retry.rungs, 1, 1, schemas=registry)
    exactly_once, avro = pipeline.guarantee == "exactly_once", pipeline.output.format == "avro"
    return rights(use, pipeline.names, topics, exactly_once, avro, pipeline.input.format == "json")


def code_of(error: BaseException) -> Code | None:
    """The code of an error, or of one of its causes, that says that the client lacks a right; None for others."""
    for each in _causes(error):
        if isinstance(each, RequestRefused) and each.code in UNAUTHORISED:
            return Code(each.code)
        for kind, code in _ERRORS.items():
            if isinstance(each, kind):
                return code
    return None


async def explain(pipeline: Settings, use: Use, error: BaseException) -> NotAuthorised | None:
    """The rights that are missing, for an error that their lack may cause; None if the error has another cause.

    A topic that the client may not see looks as if it did not exist, so NoSuchTopic and TopologyRefused count too.
    Raises nothing: when the brokers do not answer now, the error itself says what it can.
    """
    code = code_of(error)
    if code is None and not isinstance(error, NoSuchTopic | TopologyRefused):
        return None
    wanted = needed(pipeline, use)
    try:
        found = await lacking(pipeline, wanted)
    except KafkaError:
        found = []
    found = [right for right in found if right.without is Without.REFUSES] or found
    if not found and code is Code.CLUSTER_AUTHORIZATION_FAILED:
        found = [IDEMPOTENT_WRITE]
    if not found and code in _OF_CODE:
        found = [right for right in wanted if right.resource is _OF_CODE[code]]
    return NotAuthorised(found, Grantee.of(pipeline.connection())) if found else None


async def lacking(pipeline: Settings, wanted: Collection[Right]) -> list[Right]:
    """Those of the rights ``wanted`` that the client does not have.

    Of a transactional id, only the right to see it is known before a producer starts; Write includes that. Rights to
    create topics are not known before the attempt. aiokafka's errors are raised, as when no broker answers.
    """
    client = AIOKafkaClient(
        **pipeline.connection(), client_id="failsoft-access", request_timeout_ms=REQUEST_TIMEOUT_MS, retry_backoff_ms=50
    )
    try:
        async with asyncio.timeout(WITHIN):
            await client.bootstrap()
            topics = await _topics(client, sorted(_named(wanted, Resource.TOPIC)))
            groups = {group: await _group(client, group) for group in sorted(_named(wanted, Resource.GROUP))}
            ids = {name: await _transactional_id(client, name) for name in _named(wanted, Resource.TRANSACTIONAL_ID)}
    except IncompatibleBrokerVersion:
        return []  # a broker before 2.3 cannot tell
    except TimeoutError:
        log.warning("the rights are not checked: the brokers did not answer within %g s", WITHIN)
        return []
    finally:
        await client.close()
    granted = {Resource.TOPIC: topics, Resource.GROUP: groups, Resource.TRANSACTIONAL_ID: ids}
    return [right for right in wanted if not _has(granted.get(right.resource, {}).get(right.name), right)]


def _named(wanted: Collection[Right], resource: Resource) -> set[str]:
    return {right.name for right in wanted if right.resource is resource}


def _has(operations: frozenset[str] | None, right: Right) -> bool:
    return operations is None or right.operation is Operation.CREATE or right.operation in operations


async def _topics(client: AIOKafkaClient, names: Sequence[str]) -> dict[str, frozenset[str] | None]:
    """What the client may do with each topic; None for a topic that it may see and that does not exist."""
    request = OneVersion("Metadata", MetadataRequest_v8(names, False, False, True))
    response = await client.send(client.get_random_node(), request)
    found: dict[str, frozenset[str] | None] = {}
    for code, topic, _, _, operations in response.topics:
        if code == Code.TOPIC_AUTHORIZATION_FAILED:
            found[topic] = _UNSEEN
        else:
            found[topic] = allowed(operations) if operations >= 0 else None
    return found


async def _group(client: AIOKafkaClient, group: str) -> frozenset[str] | None:
    request = OneVersion("DescribeGroups", DescribeGroupsRequest_v3([group], True))
    try:
        response = await RequestLoop(client).ask(request, CoordinatorKind.GROUP, group)
    except RequestRefused as e:
        return frozenset() if e.code == Code.GROUP_AUTHORIZATION_FAILED else None
    code, operations = response.groups[0][0], response.groups[0][-1]
    if code == Code.GROUP_AUTHORIZATION_FAILED:
        return frozenset()
    return allowed(operations) if not code and operations >= 0 else None


async def _transactional_id(client: AIOKafkaClient, name: str) -> frozenset[str] | None:
    try:
        await client.coordinator_lookup(CoordinatorKind.TRANSACTION, name)
    except TransactionalIdAuthorizationFailed:
        return frozenset()
    except KafkaError:
        return None
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
