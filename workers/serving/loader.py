"""Owns the loading of model versions: for each model of the pipeline, only a version that has passed its vetting."""

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
from failsoft.models.vetting.bounded_process import Limits
from failsoft.models.vetting.cache import VettingCache
from failsoft.models.vetting.gate import examine
from failsoft.models.vetting.verdict import Vetting
from failsoft.schemas.config import duration
from failsoft.schemas.config.refusal import Refused
from failsoft.workers.execution.runner import Runs
from failsoft.workers.identity import own_folder
from failsoft.workers.scoring.plan import Served
from failsoft.workers.serving.unserved import NoVersion
from failsoft.workers.settings import Settings
from failsoft.workers.telemetry.logs import FewLines

log = structlog.get_logger("failsoft.loader")

Model = Session | Isolated
"""A loaded version. Its card says whether it runs on the worker's threads or in its own processes."""

OnDeath = Callable[[str, str], None]
"""Called on any thread when a model's process died, with the model's key and the reason as a metric label."""

Wrap = Callable[[Model], Runs]
"""Puts a wrapper between the runner and a session. The demo makes its primary fail with it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A loaded version, ready to serve.

    Attributes:
        served: the version, with what its rows are prepared with.
        session: runs its batches.
        sha256: of its model.onnx (hex).
        close: frees its memory; call it when no run is under way.
    """

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
    on_death: OnDeath = lambda key, why: None,
) -> Opened:
    """Vets, loads and warms one version of the card's model; blocks. Raises Refused, or Unloadable with the reason."""
    with _files_of(card.name, version):
        vetting = vet(repository, card, version, within)
        if not vetting.passed:
            raise Unloadable(f"{vetting.key} did not pass its vetting: {vetting.describe()}")
        artifact = vetted(repository, vetting)
        session = _loading(artifact, card, on_death)
        session.warm()
    served = Served(card.name, version, artifact.statistics, session.dtypes, session.times)
    return Opened(served, wrap(session), artifact.sha256, session.close)


@contextmanager
def _files_of(model: str, version: int) -> Iterator[None]:
    """Turns a read error into Unloadable: files may disappear or become unreadable between any two reads."""
    try:
        yield
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise Unloadable(f"{model}@{version}: its files cannot be read: {e}") from e


def _loading(artifact: Artifact, card: ModelCard, on_death: OnDeath) -> Model:
    """Starts to load a version as the card's ``isolation`` says. Raises Unloadable."""
    if card.model.isolation == "thread":
        return Session(artifact, card)

    few = FewLines(log)

    def report_death(death: Death) -> None:
        few.warning(
            "a model's process died", time.monotonic(), model=artifact.key, why=death.why, message=death.message
        )
        on_death(artifact.key, death.why)

    return Isolated(artifact, card, report_death)


def candidates(repository: Repository, model: str, active: int | None) -> list[int]:
    """The versions that may serve, in the order in which to try them.

    With ``active``, the version that the fleet wants: ``active``, then the older ones. Newer versions are left out,
    because the fleet may have rolled back from them. With None: all versions, newest first.
    """

    def on_refused(mistake: Refused) -> None:
        log.error("a version is skipped", model=model, why=str(mistake))

    versions = repository.versions(model, on_refused)
    return versions if active is None else [active, *(v for v in versions if v < active)]


def first(
    repository: Repository,
    card: ModelCard,
    active: int | None,
    wrap: Wrap = lambda session: session,
    within: Limits | None = None,
    on_death: OnDeath = lambda key, why: None,
) -> Opened | NoVersion:
    """The first candidate that can serve, or why none can; each one that cannot is logged and skipped. Raises Refused
    if none can serve and a mistake in a file is a reason.
    """
    mistake: Refused | None = None
    reasons: list[str] = []
    for version in candidates(repository, card.name, active):
        try:
            return open_version(repository, card, version, wrap, within, on_death)
        except (Refused, Unloadable, UnknownModel) as e:
            mistake = e if isinstance(e, Refused) else mistake
            reasons.append(str(e))
            log.error("a version cannot serve, trying the one before", model=card.name, version=version, why=str(e))
    if mistake is not None:
        raise mistake
    none = NoVersion(card.name, tuple(reasons) or _incomplete(repository, card.name))
    log.error("no version of a model can serve: it will not answer", model=card.name, why=list(none.reasons))
    return none


def _incomplete(repository: Repository, model: str) -> tuple[str, ...]:
    """Why a model has no complete version, and what to do."""
    example = repository.root / model / "1" / "model.onnx"
    try:
        found = [f"{model}@{version}: {why}" for version, why in repository.incomplete(model).items()]
    except (OSError, Refused) as e:
        found = [str(e)]
    return (*found, f"it has no complete version: copy a model to {example}")


def prove(repository: Repository, card: ModelCard, version: int, within: Limits | None = None) -> str | None:
    """Why this version may not serve now, or None; blocks. It is vetted anew: a remembered pass does not count."""
    try:
        with _files_of(card.name, version):
            vetting = vet(repository, card, version, within, anew=True)
    except (UnknownModel, Refused, Unloadable) as e:
        return str(e)
    return None if vetting.passed else vetting.describe()


def limits(settings: Settings) -> Limits:
    """The limits of a vetting, from the pipeline file."""
    wall = duration.seconds(settings.models.vetting_time)
    # Processor time is half of the wall time: workers that answer events may need the other half.
    return Limits(memory=settings.models.vetting_memory_mb * 1_000_000, cpu=wall / 2, wall=wall)


def vet(
    repository: Repository, card: ModelCard, version: int, within: Limits | None = None, anew: bool = False
) -> Vetting:
    """The verdict on a version; blocks. Returns at once if this machine remembers a pass, unless ``anew``."""
    return examine(repository, card, version, within, VettingCache(own_folder()), anew)


def vetted(repository: Repository, vetting: Vetting) -> Artifact:
    """The version that was vetted, to be loaded. Raises Unloadable if its files are gone or have changed."""
    try:
        artifact = repository.artifact(vetting.model, vetting.version)
    except UnknownModel as e:
        raise Unloadable(str(e)) from None
    if artifact.sha256 != vetting.sha256:
        raise Unloadable(f"{vetting.key}: model.onnx changed after it was vetted: give each version a new number")
    return artifact
