"""``failsoft models list|history|promote|rollback``: shows the version that the fleet serves, and changes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.schemas.model_version import ModelVersion
from failsoft.topics.rights import Use
from failsoft.workers.commands import context, output
from failsoft.workers.commands.breakers import Wait, Who, default_who, now_ms
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import CommandFailed, Interrupted

if TYPE_CHECKING:
    from failsoft.models.catalog.card import ModelCard
    from failsoft.schemas.fleet.rollout import Direction, Order
    from failsoft.workers.settings import Settings

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model of the pipeline.")]
Version = Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="The version to serve.")]
Back = Annotated[
    str,
    typer.Argument(metavar="MODEL[@VERSION]", help="The version to serve. A model alone: its last good version."),
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason; shown in the history and the alert.")]

WAIT = 10.0
"""Seconds. A dead owner is replaced within the session timeout of six, and the next owner reads the table first."""


def add(app: typer.Typer) -> None:
    """Adds the commands to the group ``models``."""
    for name, command in (("list", list_), ("history", history), ("promote", promote), ("rollback", rollback)):
        app.command(name)(command)


def list_(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """List the versions: role, workers that serve it, and failures, latency and confidence of the last five minutes.

    **Example**: `failsoft models list`
    """
    from failsoft.workers.fleet import rollouts
    from failsoft.workers.fleet.table import changelog
    from failsoft.workers.operations import breaker_view, version_view

    settings = context.settings(ctx, pipeline)
    cards = _cards(settings)
    disk = [each for card in cards.values() for each in _on_disk(settings, card)]

    async def read() -> list[dict[str, Any]]:
        async with (
            changelog(settings, settings.names.rollouts_changelog) as moves,
            changelog(settings, settings.names.breakers_changelog) as states,
        ):
            # A model that was removed from the pipeline keeps its row, but no worker serves it.
            known = {model: row for model, row in (await rollouts.rows(moves)).items() if model in cards}
            return version_view.listed(disk, known, breaker_view.rows(await states.refresh()), now_ms())

    about = context.run(ctx, read(), (settings, Use.MODELS))
    cells = [*map(version_view.shown, about)]
    columns = [
        "model",
        "version",
        "role",
        "workers",
        "calls",
        "failures",
        "latency",
        "confidence",
        "breaker",
        "problems",
    ]
    # Empty columns are left out: a terminal may be narrow.
    some = [c for c in columns if any(each.get(c) is not None for each in cells)]
    if output.people(as_json):
        output.rows(cells, some, as_json)
    else:
        output.rows(about, some, as_json)


def history(ctx: typer.Context, model: Model, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Show the changes of a model's active version, newest first: time, versions, trigger, who and why.

    **Example**: `failsoft models history repayment`
    """
    from failsoft.workers.fleet import rollouts
    from failsoft.workers.fleet.table import changelog
    from failsoft.workers.operations import version_view

    settings = context.settings(ctx, pipeline)
    _known(settings, model)

    async def read() -> list[dict[str, Any]]:
        async with changelog(settings, settings.names.rollouts_changelog) as table:
            row = (await rollouts.rows(table)).get(model)
        return version_view.history(row) if row else []

    output.rows(
        context.run(ctx, read(), (settings, Use.MODELS)), ["at", "from", "to", "trigger", "who", "why"], as_json
    )


def promote(
    ctx: typer.Context,
    version: Version,
    pipeline: Pipeline = None,
    why: Why = "",
    who: Who = None,
    wait: Wait = WAIT,
    as_json: Json = False,
) -> None:
    """Make the whole fleet serve a version. It is vetted here first, and again by each worker before it serves.

    **Example**: `failsoft models promote repayment@3 --why "recall up 2 points on June"`
    """
    from failsoft.schemas.fleet.rollout import Direction

    settings = context.settings(ctx, pipeline)
    named = ModelVersion.parse(version)
    if named is None:
        raise typer.BadParameter(f"{version!r} is not a version: write MODEL@VERSION", param_hint="MODEL@VERSION")
    _prove(settings, _known(settings, named.model), named.version)
    _order(ctx, settings, named.model, Direction.PROMOTE, version, why, who, wait, as_json)


def rollback(
    ctx: typer.Context,
    target: Back,
    pipeline: Pipeline = None,
    why: Why = "",
    who: Who = None,
    wait: Wait = WAIT,
    as_json: Json = False,
) -> None:
    """Roll the whole fleet back to the last good version, or to the version named.

    **Example**: `failsoft models rollback repayment --why "many wrong scores"`
    """
    from failsoft.schemas.fleet.rollout import Direction

    settings = context.settings(ctx, pipeline)
    named = ModelVersion.parse(target)
    if named is not None and named.model in _cards(settings):
        model = named.model
        _prove(settings, _known(settings, model), named.version)
    else:
        model = _known(settings, target).name
    _order(ctx, settings, model, Direction.ROLLBACK, target, why, who, wait, as_json)


def _order(
    ctx: typer.Context,
    settings: Settings,
    model: str,
    direction: Direction,
    target: str,
    why: str,
    who: str | None,
    wait: float,
    as_json: bool,
) -> None:
    from failsoft.workers.fleet import rollouts
    from failsoft.workers.fleet import table as changelog
    from failsoft.workers.operations import version_view
    from failsoft.workers.operations.orders import send

    order = _checked(target, direction, default_who() if who is None else who, why)
    sent = f"{direction} of {target} is written to {settings.names.control}"
    later = f"{sent}, and will be obeyed when a worker owns the table; see: failsoft models history {model}"
    written = False

    async def work() -> list[dict[str, Any]] | None:
        nonlocal written
        async with changelog.changelog(settings, settings.names.rollouts_changelog) as table:
            before = (await rollouts.rows(table)).get(model)
            if before is None:
                raise CommandFailed(
                    f"the fleet serves no version of {model} yet: start a worker, and it will serve the newest one"
                )
            await send(settings, model, order.to_bytes())
            written = True
            result = await rollouts.answered(table, model, order, wait) if wait else None
        if result is None:
            return None
        row, answer = result
        if answer.refused is not None:
            raise CommandFailed(f"refused: {answer.refused}")
        return version_view.history(row)[:1] if row.active != before.active else []

    try:
        with output.progress("waiting for the fleet", "read"):
            about = context.run(ctx, work(), (settings, Use.MODEL_ORDERS))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted(f"interrupted: {later if written else 'nothing was written'}") from None
    if about:
        output.rows(about, ["at", "model", "from", "to", "trigger", "who", "why"], as_json)
        output.note(f"{direction} of {target}: obeyed; workers switch when they have loaded it: failsoft models list")
    elif about is not None:
        output.note(f"{target} is already active: nothing has changed")
    elif wait:
        raise CommandFailed(f"not obeyed within {wait:g} s: {later}")
    else:
        output.note(sent)


def _checked(target: str, direction: Direction, who: str, why: str) -> Order:
    """The order to send. Raises BadParameter if the owner would refuse it as malformed."""
    from failsoft.schemas.fleet.rollout import Order
    from failsoft.schemas.wire import Malformed

    try:
        return Order.parse(Order(target, direction, who, why, now_ms()).to_bytes())
    except (Malformed, ValueError) as e:
        raise typer.BadParameter(str(e)) from None


def _cards(settings: Settings) -> dict[str, ModelCard]:
    """The cards of the pipeline's models that have versions; an ensemble has none, only its members do."""
    from failsoft.models.catalog.repository import Repository
    from failsoft.workers.serving.pipeline import load_cards

    cards = load_cards(settings, Repository(Path(settings.models.repository)))
    return {model: card for model, card in cards.items() if card.ensemble is None}


def _known(settings: Settings, model: str) -> ModelCard:
    from failsoft.schemas.config.refusal import near

    cards = _cards(settings)
    if model not in cards:
        known = ", ".join(cards)
        raise typer.BadParameter(f"no model {model!r} in this pipeline{near(model, cards)}; there are: {known}")
    return cards[model]


def _on_disk(settings: Settings, card: ModelCard) -> list[Any]:
    from failsoft.models.catalog.repository import Repository, UnknownModel
    from failsoft.schemas.config.refusal import Refused
    from failsoft.workers.operations.version_view import OnDisk

    repository = Repository(Path(settings.models.repository))
    versions = []
    for version in repository.versions(card.name, mistaken=lambda error: output.note(str(error))):
        try:
            trained = repository.artifact(card.name, version).trained_at
        except (Refused, OSError):  # vetting refuses this version, but it exists, so it is listed
            trained = None
        except UnknownModel:  # it was deleted meanwhile
            continue
        versions.append(OnDisk(card.name, version, None if trained is None else trained.isoformat()))
    return versions


def _prove(settings: Settings, card: ModelCard, version: int) -> None:
    """Vets a version. Raises BadParameter if it does not exist, CommandFailed if it does not pass."""
    from failsoft.models.catalog.repository import Repository, UnknownModel
    from failsoft.workers.serving import loader

    repository = Repository(Path(settings.models.repository))
    try:
        repository.artifact(card.name, version)
    except UnknownModel as e:
        raise typer.BadParameter(str(e), param_hint="MODEL@VERSION") from None
    with output.progress("vetting", "versions"):
        why = loader.prove(repository, card, version, loader.limits(settings))
    if why is not None:
        raise CommandFailed(f"{card.name}@{version} may not serve: {why}")
