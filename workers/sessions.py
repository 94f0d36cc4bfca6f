"""Which model versions this worker loads, of each model that the pipeline names: only what passed its vetting."""

from __future__ import annotations

import importlib
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from failsoft.models.catalog.card import ModelCard, mismatches
from failsoft.models.catalog.chain import LinkKind
from failsoft.models.catalog.fields import Method
from failsoft.models.catalog.repository import Artifact, Repository, UnknownModel
from failsoft.models.isolation.isolated_session import Isolated
from failsoft.models.isolation.pool import Death
from failsoft.models.runtime.session import Session, Unloadable
from failsoft.models.vetting.cache import Passes
from failsoft.models.vetting.gate import Limits, examine
from failsoft.models.vetting.verdict import Vetting
from failsoft.schemas.config import duration
from failsoft.schemas.config.refusal import Refused
from failsoft.workers.identity import own_folder
from failsoft.workers.logs import FewLines
from failsoft.workers.runner import Runs
from failsoft.workers.scoring.plan import Plan, Rule, Served
from failsoft.workers.settings import Settings

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


def cards(settings: Settings, repository: Repository) -> dict[str, ModelCard]:
    """The cards of the primary, its members and the models in its chain. Raises Refused: the file and the key."""
    try:
        primary = repository.card(settings.model)
    except UnknownModel as e:
        raise Refused("pipeline.toml", [f"model: {e}"]) from None
    where = str(repository.root / settings.model / "card.toml")
    if primary.fallback is None:
        advice = 'add a [fallback] section, at the least: chain = ["static"] and static = { score = 0.5, label = 0 }'
        raise Refused(where, [f"fallback: missing, and a primary must always have an answer; {advice}"])
    _refuse_unkept(where, primary)
    found = {settings.model: primary, **_members(where, primary, repository)}
    for link in primary.fallback.chain:
        if link.kind is LinkKind.MODEL and link.target is not None:
            try:
                found[link.target] = repository.card(link.target)
                _refuse_unkept(str(repository.root / link.target / "card.toml"), found[link.target])
            except UnknownModel as e:
                raise Refused(where, [f"fallback.chain: {e}"]) from None
            if found[link.target].ensemble is not None:
                told = "an ensemble answers only as a pipeline's primary: name one of its members"
                raise Refused(where, [f"fallback.chain: {str(link)!r}: {told}"])
    return found


def _members(where: str, card: ModelCard, repository: Repository) -> dict[str, ModelCard]:
    """The cards of an ensemble's members, none for a model. Raises Refused."""
    found: dict[str, ModelCard] = {}
    for name in card.ensemble.names if card.ensemble else ():
        try:
            found[name] = repository.card(name)
        except UnknownModel as e:
            raise Refused(where, [f"ensemble.members: {e}"]) from None
        _refuse_unkept(str(repository.root / name / "card.toml"), found[name])
    problems = mismatches(card, found)
    if problems:
        raise Refused(where, problems)
    return found


def _refuse_unkept(where: str, card: ModelCard) -> None:
    """Workers keep no entity's features yet, so a card that asks for them would make such events invalid."""
    asking = [f.name for f in card.features if f.impute is not None and f.impute.method is Method.LAST_KNOWN]
    if asking:
        advice = 'give a value, "mean", "median" or "mode"'
        raise Refused(where, [f'features: {n!r}: impute = "last_known" is not supported yet; {advice}' for n in asking])


def rules(card: ModelCard, where: str) -> dict[str, Rule]:
    """The functions that the chain names. Raises Refused for one that cannot be imported or called."""
    found: dict[str, Rule] = {}
    for link in card.fallback.chain if card.fallback else ():
        if link.kind is not LinkKind.RULE or link.target is None:
            continue
        module, _, name = link.target.partition(":")
        try:
            rule = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as e:
            raise Refused(where, [f"fallback.chain: rule:{link.target} cannot be imported: {e}"]) from None
        if not callable(rule):
            raise Refused(where, [f"fallback.chain: rule:{link.target} is not a function"])
        found[link.target] = rule
    return found


def plan(settings: Settings, found: Mapping[str, ModelCard], repository: Repository) -> Plan:
    """The pipeline as scoring wants it."""
    names, primary = settings.names, found[settings.model]
    assert primary.fallback is not None
    return Plan(
        primary=settings.model,
        cards=found,
        chain=primary.fallback.chain,
        rules=rules(primary, str(repository.root / settings.model / "card.toml")),
        envelope=settings.envelope,
        delays=settings.retry.rungs,
        jitter=settings.retry.jitter,
        rungs={names.retry(name): delay for name, delay in settings.retry.rungs},
        replay=names.replay,
    )


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
            raise Unloadable(f"{vetting.key} did not pass its vetting: {vetting.told()}")
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

    def told(death: Death) -> None:
        few.warning(
            "a model's process died", time.monotonic(), model=artifact.key, why=death.why, message=death.message
        )
        died(artifact.key, death.why)

    return Isolated(artifact, card, told)


def candidates(repository: Repository, model: str, active: int | None) -> list[int]:
    """The versions that may serve, the one to try first in front: ``active``, which the fleet wants, and what is older
    (never what is newer: the fleet may have left that); the newest first where the fleet wants none yet.
    """

    def told(mistake: Refused) -> None:
        log.error("a version is passed over", model=model, why=str(mistake))

    versions = repository.versions(model, told)
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
    return None if vetting.passed else vetting.told()


def limits(settings: Settings) -> Limits:
    """What a vetting may take, as the pipeline file says."""
    wall = duration.seconds(settings.models.vetting_time)
    # Half of it on the processor, whose other half the workers that answer meanwhile may need.
    return Limits(memory=settings.models.vetting_memory_mb * 1_000_000, cpu=wall / 2, wall=wall)


def vet(
    repository: Repository, card: ModelCard, version: int, within: Limits | None = None, anew: bool = False
) -> Vetting:
    """The verdict on a version, blocking: at once for one that this machine has seen pass, unless ``anew``."""
    return examine(repository, card, version, within, Passes(own_folder()), anew)


def vetted(repository: Repository, vetting: Vetting) -> Artifact:
    """What was vetted, to be loaded. Raises Unloadable if it is no longer there."""
    try:
        artifact = repository.artifact(vetting.model, vetting.version)
    except UnknownModel as e:
        raise Unloadable(str(e)) from None
    if artifact.sha256 != vetting.sha256:
        raise Unloadable(f"{vetting.key}: model.onnx changed after it was vetted: give each version a new number")
    return artifact
