"""Checks a worker's rights when it starts, together with its topics, before it takes events."""

from __future__ import annotations

import structlog

from failsoft.topics import admin
from failsoft.topics.layout import Topology
from failsoft.topics.rights import Grantee, NotAuthorised, Resource, Right, Use, Without
from failsoft.workers.kafka import access
from failsoft.workers.settings import Settings, wanted

log = structlog.get_logger("failsoft.process")


async def verified(pipeline: Settings) -> Topology:
    """The pipeline's topology, checked, with a worker's rights.

    A topic of the control plane that may not be seen is left out: events are scored without it. Settings that may not
    be read are not verified, which is said once.

    Raises NotAuthorised for rights without which no event can be scored; TopologyRefused or KafkaUnreachable as
    ``admin.verify`` does.
    """
    connection = pipeline.connection()
    try:
        topology = await admin.verify(connection, wanted(pipeline), admin.RESTARTED_WITHIN)
    except admin.TopologyRefused:
        # A topic that may not be seen looks as if it did not exist.
        lacking = await access.lacking(pipeline, access.needed(pipeline, Use.WORKER))
        _refuse(lacking, Grantee.of(connection))
        topology = await admin.verify(connection, wanted(pipeline), unseen=_topics(lacking, Without.LOCAL))
    else:
        lacking = await access.lacking(pipeline, access.needed(pipeline, Use.WORKER))
        _refuse(lacking, Grantee.of(connection))
    if unread := [right for right in lacking if right.without is Without.UNVERIFIED]:
        log.warning(
            "the settings of topics may not be read and are not verified",
            topics=_topics(unread, Without.UNVERIFIED),
            grant=Grantee.of(connection).commands(unread),
        )
    return topology


async def plane_lacks(pipeline: Settings) -> list[str]:
    """The rights of the control plane that this worker lacks: a line for each, with the command that grants it."""
    needed = [right for right in access.needed(pipeline, Use.WORKER) if right.without is Without.LOCAL]
    return [Grantee.of(pipeline.connection()).refusal(right) for right in await access.lacking(pipeline, needed)]


def _refuse(lacking: list[Right], to: Grantee) -> None:
    if refused := [right for right in lacking if right.without is Without.REFUSES]:
        raise NotAuthorised(refused, to)


def _topics(lacking: list[Right], without: Without) -> list[str]:
    return sorted({r.name for r in lacking if r.resource is Resource.TOPIC and r.without is without})
