"""Which model versions this worker loads, of each model that the pipeline names: only what passed its vetting."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact, Repository, UnknownModel
from failsoft.models.isolation.isolated_session import Isolated
from failsoft.models.isolation.replica import Death
from failsoft.models.runtime.session import Session, Unloadable
from failsoft.models.vetting.cache import VettingCache
from failsoft.models.vetting.gate import Limits, examine
from failsoft.models.vetting.verdict import Vetting
from failsoft.schemas.config import duration
from failsoft.schemas.config.refusal import Refused
from failsoft.workers.execution.runner import Runs
from failsoft.workers.identity import own_folder
from failsoft.workers.scoring.plan import Served
from failsoft.workers.settings import Settings
from failsoft.workers.telemetry.logs import FewLines

log = structlog.get_logger("failsoft.sessions")

Model = Session | Isolated
"""A loaded version: its card says whether it runs on the worker's threads or in processes of its own."""

Died = Callable[[str, str], None]
"""Hears, on any thread, of a model's process that died: the model's key, and why in a word."""

Wrap = Callable[[Model], Runs]
"""Puts something between the runner and a session: the demo makes its primary fail this way."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A version in memory, ready to serve. ``close`` gives its memory back, once no run is under way."""

    served: Served
    session: Runs
    sha256: str
    close: Callable[[], None]


def open_version(
    repository: Repository,
    card: ModelCard,
    version: int,
    wrap: Wrap = lambda session: session,
    within: Limits | None = None,
    died: Died = lambda key, why: None,
) -> Opened:
    """Vet, load and warm one version of the card's model, blocking. Raises Refused, or Unloadable with what failed."""
    with _files_of(card.name, version):
        vetting = vet(repository, card, version, within)
        if not vetting.passed:
            raise Unloadable(f"{vetting.key} did not pass its vetting: {vetting.describe()}")
        artifact = vetted(repository, vetting)
        session = _loading(artifact, card, died)
        session.warm()
    served = Served(card.name, version, artifact.statistics)
    return Opened(served, wrap(session), artifact.sha256, session.close)


@contextmanager
def _files_of(model: str, version: int) -> Iterator[None]:
    """Files may vanish, or be unreadable, between any two looks: no more than a version that cannot serve."""
    try:
        yield
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise Unloadable(f"{model}@{version}: its files cannot be read: {e}") from e


def _loading(artifact: Artifact, card: ModelCard, died: Died) -> Model:
    """As the card's ``isolation`` says. Raises Unloadable."""
    if card.model.isolation == "thread":
        return Session(artifact, card)

    few = FewLines(log)

    def on_death(death: Death) -> None:
        few.warning(
            "a model's process died", time.monotonic(), model=artifact.key, why=death.why, message=death.message
        )
        died(artifact.key, death.why)

    return Isolated(artifact, card, on_death)


def candidates(repository: Repository, model: str, active: int | None) -> list[int]:
    """The versions that may serve, the one to try first in front: ``active``, which the fleet wants, and what is older
    (never what is newer: the fleet may have left that); the newest first where the fleet wants none yet.
    """

    def on_refused(mistake: Refused) -> None:
        log.error("a version is passed over", model=model, why=str(mistake))

    versions = repository.versions(model, on_refused)
    return versions if active is None else [active, *(v for v in versions if v < active)]


def first(
    repository: Repository,
    card: ModelCard,
    active: int | None,
    wrap: Wrap = lambda session: session,
    within: Limits | None = None,
    died: Died = lambda key, why: None,
) -> Opened | None:
    """The first candidate that can serve; one that cannot is passed over, loudly, for the next. Raises Refused
    when none can, and a file's mistake is why.
    """
    mistake: Refused | None = None
    for version in candidates(repository, card.name, active):
        try:
            return open_version(repository, card, version, wrap, within, died)
        except (Refused, Unloadable, UnknownModel) as e:
            mistake = e if isinstance(e, Refused) else mistake
            log.error("a version cannot serve, trying the one before", model=card.name, version=version, why=str(e))
    if mistake is not None:
        raise mistake
    log.error("no version of a model can serve: it will not answer", model=card.name)
    return None


def prove(repository: Repository, card: ModelCard, version: int, within: Limits | None = None) -> str | None:
    """Why this version may not serve now, or None, blocking. No pass that is remembered counts: it is vetted anew."""
    try:
        with _files_of(card.name, version):
            vetting = vet(repository, card, version, within, anew=True)
    except (UnknownModel, Refused, Unloadable) as e:
        return str(e)
    return None if vetting.passed else vetting.describe()


def limits(settings: Settings) -> Limits:
    """What a vetting may take, as the pipeline file says."""
    wall = duration.seconds(settings.models.vetting_time)
    # Half of it on the processor, whose other half the workers that answer meanwhile may need.
    return Limits(memory=settings.models.vetting_memory_mb * 1_000_000, cpu=wall / 2, wall=wall)


def vet(
    repository: Repository, card: ModelCard, version: int, within: Limits | None = None, anew: bool = False
) -> Vetting:
    """The verdict on a version, blocking: at once for one that this machine has seen pass, unless ``anew``."""
    return examine(repository, card, version, within, VettingCache(own_folder()), anew)


def vetted(repository: Repository, vetting: Vetting) -> Artifact:
    """What was vetted, to be loaded. Raises Unloadable if it is no longer there."""
    try:
        artifact = repository.artifact(vetting.model, vetting.version)
    except UnknownModel as e:
        raise Unloadable(str(e)) from None
    if artifact.sha256 != vetting.sha256:
        raise Unloadable(f"{vetting.key}: model.onnx changed after it was vetted: give each version a new number")
    return artifact
