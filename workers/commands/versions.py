"""``failsoft models list|history|promote|rollback``: which version the fleet serves, and moving between them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.schemas.model_version import ModelVersion
from failsoft.workers.commands import context, output
from failsoft.workers.commands.breakers import Wait, Who, me, now_ms
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import CommandFailed, Interrupted

if TYPE_CHECKING:
    from failsoft.models.catalog.card import ModelCard
    from failsoft.schemas.fleet.rollout import Direction, Order
    from failsoft.workers.settings import Settings

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model of the pipeline.")]
Version = Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="The version to serve.")]
Back = Annotated[
    str, typer.Argument(metavar="MODEL[@VERSION]", help="A model: to its last good version. Else to the one named.")
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Goes into the history and the alert.")]

WAIT = 10.0
"""Seconds: an owner that died is replaced within a session's six, and its successor reads the table first."""


def add(app: typer.Typer) -> None:
    """Add the commands to the group ``models``."""
    for name, command in (("list", list_), ("history", history), ("promote", promote), ("rollback", rollback)):
        app.command(name)(command)


def list_(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """List the versions: which is active, who serves it, and how each did in the last five minutes.

    **Example**: `failsoft models list`
    """
    from failsoft.workers.fleet import rollouts
    from failsoft.workers.fleet.table import changelog
    from failsoft.workers.operations import breaker_view, version_view

    settings = context.settings(ctx, pipeline)
    cards = _cards(settings)
    disk = [each for card in cards.values() for each in _on_disk(settings, card)]

    async def look() -> list[dict[str, Any]]:
        async with (
            changelog(settings, settings.names.rollouts_changelog) as moves,
            changelog(settings, settings.names.breakers_changelog) as states,
        ):
            # A model that the pipeline no longer names has a row for ever, and no worker serves it.
            known = {model: row for model, row in (await rollouts.rows(moves)).items() if model in cards}
            return version_view.listed(disk, known, breaker_view.rows(await states.refresh()), now_ms())

    about = context.run(ctx, look())
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
    some = [c for c in columns if any(each.get(c) is not None for each in cells)]  # a terminal may be narrow
    if output.people(as_json):
        output.rows(cells, some, as_json)
    else:
        output.rows(about, some, as_json)


def history(ctx: typer.Context, model: Model, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Show a model's moves from version to version, the newest first: when, who, why, and what brought them about.

    **Example**: `failsoft models history repayment`
    """
    from failsoft.workers.fleet import rollouts
    from failsoft.workers.fleet.table import changelog
    from failsoft.workers.operations import version_view

    settings = context.settings(ctx, pipeline)
    _known(settings, model)

    async def look() -> list[dict[str, Any]]:
        async with changelog(settings, settings.names.rollouts_changelog) as table:
            row = (await rollouts.rows(table)).get(model)
        return version_view.history(row) if row else []

    output.rows(context.run(ctx, look()), ["at", "from", "to", "trigger", "who", "why"], as_json)


def promote(
    ctx: typer.Context,
    version: Version,
    pipeline: Pipeline = None,
    why: Why = "",
    who: Who = None,
    wait: Wait = WAIT,
    as_json: Json = False,
) -> None:
    """Make the whole fleet serve a version. It is vetted here first, and by each worker before it serves it.

    **Example**: `failsoft models promote repayment@3 --why "recall up 2 points on June"`
    """
    from failsoft.schemas.fleet.rollout import Direction

    settings = context.settings(ctx, pipeline)
    named = ModelVersion.parse(version)
    if named is None:
        raise typer.BadParameter(f"{version!r} names no version: write MODEL@VERSION", param_hint="MODEL@VERSION")
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
    """Make the whole fleet go back: to the last version that served well, or to the one named.

    **Example**: `failsoft models rollback repayment --why "complaints from the north"`
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

    order = _checked(target, direction, me() if who is None else who, why)
    said = f"{direction} of {target} is written to {settings.names.control}"
    later = f"{said}, and will be obeyed when a worker owns the table; see: failsoft models history {model}"
    written = False

    async def work() -> list[dict[str, Any]] | None:
        nonlocal written
        async with changelog.changelog(settings, settings.names.rollouts_changelog) as table:
            before = (await rollouts.rows(table)).get(model)
            if before is None:
                raise CommandFailed(
                    f"the fleet has no version of {model} yet: start a worker, and it serves the newest"
                )
            await send(settings, model, order.to_bytes())
            written = True
            found = await rollouts.answered(table, model, order, wait) if wait else None
        if found is None:
            return None
        row, answer = found
        if answer.refused is not None:
            raise CommandFailed(f"refused: {answer.refused}")
        return version_view.history(row)[:1] if row.active != before.active else []

    try:
        with output.progress("waiting for the fleet", "read"):
            about = context.run(ctx, work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted(f"interrupted: {later if written else 'nothing was written'}") from None
    if about:
        output.rows(about, ["at", "model", "from", "to", "trigger", "who", "why"], as_json)
        output.note(f"{direction} of {target}: obeyed; workers follow as they load it: failsoft models list")
    elif about is not None:
        output.note(f"{target} is active already: nothing has changed")
    elif wait:
        raise CommandFailed(f"not obeyed within {wait:g} s: {later}")
    else:
        output.note(said)


def _checked(target: str, direction: Direction, who: str, why: str) -> Order:
    """The order, within the limits that its reader holds it to."""
    from failsoft.schemas.fleet.rollout import Order
    from failsoft.schemas.wire import Malformed

    try:
        return Order.parse(Order(target, direction, who, why, now_ms()).to_bytes())
    except (Malformed, ValueError) as e:
        raise typer.BadParameter(str(e)) from None


def _cards(settings: Settings) -> dict[str, ModelCard]:
    """The pipeline's models that have versions: an ensemble is its members."""
    from failsoft.models.catalog.repository import Repository
    from failsoft.workers.serving.pipeline import load_cards

    found = load_cards(settings, Repository(Path(settings.models.repository)))
    return {model: card for model, card in found.items() if card.ensemble is None}


def _known(settings: Settings, model: str) -> ModelCard:
    from failsoft.schemas.config.refusal import near

    cards = _cards(settings)
    if model not in cards:
        there = ", ".join(cards)
        raise typer.BadParameter(f"no model {model!r} in this pipeline{near(model, cards)}; there are: {there}")
    return cards[model]


def _on_disk(settings: Settings, card: ModelCard) -> list[Any]:
    from failsoft.models.catalog.repository import Repository, UnknownModel
    from failsoft.schemas.config.refusal import Refused
    from failsoft.workers.operations.version_view import OnDisk

    repository = Repository(Path(settings.models.repository))
    found = []
    for version in repository.versions(card.name, mistaken=lambda error: output.note(str(error))):
        try:
            trained = repository.artifact(card.name, version).trained_at
        except (Refused, OSError):  # it may not serve, as its vetting says; it is there all the same
            trained = None
        except UnknownModel:  # it has just gone
            continue
        found.append(OnDisk(card.name, version, None if trained is None else trained.isoformat()))
    return found


def _prove(settings: Settings, card: ModelCard, version: int) -> None:
    """Raises BadParameter for a version that is not there, CommandFailed for one that does not pass."""
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
