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

    async def read_cluster() -> tuple[Topology, dict[str, int], ClockProbe]:
        topology = await permission.verified(pipeline)
        probe = await composition.measured_clock(pipeline, identity.id)
        return topology, await rollouts.active(pipeline), probe

    topology, active, probe = asyncio.run(read_cluster())
    app = composition.build(pipeline, composition.Options(worker_id=identity.id), topology, active, probe)
    app.identity = identity
    return app


def __getattr__(name: str) -> Any:
    """Build ``app`` when Faust gets this attribute, and not when this module is imported."""
    if name != "app":
        raise AttributeError(name)
    return standalone_app()
