"""Deploys the demo's bad version: copies, vets and promotes it, as `failsoft models promote` does."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from failsoft.models.catalog.repository import Repository
from failsoft.schemas.fleet.rollout import Direction, Order
from failsoft.schemas.model_version import ModelVersion
from failsoft.workers.demo.environment import EnvironmentFailed
from failsoft.workers.fleet import rollouts
from failsoft.workers.fleet import table as changelog
from failsoft.workers.operations.orders import send
from failsoft.workers.serving import loader
from failsoft.workers.settings import Settings

MISTAKEN = Path(__file__).parent / "data" / "mistaken"
"""The files of the bad version, made by models/training/mistaken.py, which describes its bug. They are not in
models/repository, where all workers would serve it as the newest version."""

OBEYED_WITHIN = 40.0
"""Seconds for the owner to answer an order. It takes milliseconds, or ten seconds on an idle machine if the owner has
to be replaced."""


def copy(pipeline: Settings) -> int:
    """Copies the bad version into the demo's own repository as the newest of the primary; returns its number."""
    repository = Repository(Path(pipeline.models.repository))
    number = max(repository.versions(pipeline.model)) + 1
    shutil.copytree(MISTAKEN, repository.root / pipeline.model / str(number))
    return number


async def promote(pipeline: Settings, version: int, who: str, why: str) -> None:
    """Vets ``version``, orders its promotion and waits until the owner has obeyed.

    Raises EnvironmentFailed when the version does not pass, the order is refused, or it is not obeyed in time.
    """
    repository = Repository(Path(pipeline.models.repository))
    key, card = str(ModelVersion(pipeline.model, version)), repository.card(pipeline.model)
    unfit = await asyncio.to_thread(loader.prove, repository, card, version, loader.limits(pipeline))
    if unfit is not None:
        raise EnvironmentFailed(f"{key} should pass its vetting, but did not: {unfit}")
    order = Order(key, Direction.PROMOTE, who, why, int(time.time() * 1000))
    async with changelog.changelog(pipeline, pipeline.names.rollouts_changelog) as table:
        await send(pipeline, pipeline.model, order.to_bytes())
        result = await rollouts.answered(table, pipeline.model, order, OBEYED_WITHIN)
    if result is None:
        raise EnvironmentFailed(f"the promotion of {key} was not obeyed within {OBEYED_WITHIN:g} s")
    _, answer = result
    if answer.refused is not None:
        raise EnvironmentFailed(f"the promotion of {key} was refused: {answer.refused}")
