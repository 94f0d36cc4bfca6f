"""How the demo's bad version comes to the fleet: copied, vetted and promoted, as `failsoft models promote` does it."""

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
"""The version: models/training/mistaken.py made it, and says what is wrong with it. Not in models/repository, where
every user's workers would take it for the newest."""

OBEYED_WITHIN = 40.0
"""Seconds for the owner to answer an order: it takes milliseconds, and where an owner has to be replaced, ten seconds
on a quiet machine."""


def copy(pipeline: Settings) -> int:
    """The bad version becomes the newest of the pipeline's primary, in the demo's own repository; its number."""
    repository = Repository(Path(pipeline.models.repository))
    number = max(repository.versions(pipeline.model)) + 1
    shutil.copytree(MISTAKEN, repository.root / pipeline.model / str(number))
    return number


async def promote(pipeline: Settings, version: int, who: str, why: str) -> None:
    """Returns once the owner has obeyed. Raises EnvironmentFailed when the version may not serve, or is refused."""
    repository = Repository(Path(pipeline.models.repository))
    key, card = str(ModelVersion(pipeline.model, version)), repository.card(pipeline.model)
    unfit = await asyncio.to_thread(loader.prove, repository, card, version, loader.limits(pipeline))
    if unfit is not None:
        raise EnvironmentFailed(f"{key} should pass its vetting, and did not: {unfit}")
    order = Order(key, Direction.PROMOTE, who, why, int(time.time() * 1000))
    async with changelog.changelog(pipeline, pipeline.names.rollouts_changelog) as table:
        await send(pipeline, pipeline.model, order.to_bytes())
        found = await rollouts.answered(table, pipeline.model, order, OBEYED_WITHIN)
    if found is None:
        raise EnvironmentFailed(f"the promotion of {key} was not obeyed within {OBEYED_WITHIN:g} s")
    _, answer = found
    if answer.refused is not None:
        raise EnvironmentFailed(f"the promotion of {key} was refused: {answer.refused}")
