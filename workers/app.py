"""The entry point of `faust -A failsoft.workers.app worker`."""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Any

from failsoft.topics.layout import Topology
from failsoft.workers import settings
from failsoft.workers.fleet import rollouts
from failsoft.workers.identity import Identity, claim
from failsoft.workers.kafka.clock_probe import ClockProbe
from failsoft.workers.process import composition, permission
from failsoft.workers.schema_registry import answer_schema
from failsoft.workers.telemetry import logs


@functools.cache
def standalone_app() -> composition.App:
    """The app for ``faust -A failsoft.workers.app worker``, configured by the environment only.

    The result is cached: Faust asks for it more than once, and a second build would claim the same worker id again.
    Raises Refused, DuplicateId, InvalidId, KafkaUnreachable, TopologyRefused or NotAuthorised.
    """
    logs.configure()
    pipeline = settings.load(None, os.environ)
    identity: Identity = claim(pipeline.name, os.environ.get("FAILSOFT_WORKER_ID"))

    async def read_cluster() -> tuple[Topology, dict[str, int], ClockProbe, int | None]:
        topology = await permission.verified(pipeline)
        probe = await composition.measured_clock(pipeline, identity.id)
        return topology, await rollouts.active(pipeline), probe, await answer_schema.required(pipeline)

    topology, active, probe, schema = asyncio.run(read_cluster())
    options = composition.Options(worker_id=identity.id, answer_schema=schema)
    app = composition.build(pipeline, options, topology, active, probe)
    app.identity = identity
    return app


def __getattr__(name: str) -> Any:
    """Build ``app`` when Faust gets this attribute, and not when this module is imported."""
    if name != "app":
        raise AttributeError(name)
    return standalone_app()
