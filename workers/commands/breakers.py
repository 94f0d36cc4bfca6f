"""``failsoft breakers``: lists, opens, closes, disables and resets the fleet's breakers."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.topics.rights import Use
from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import CommandFailed, Interrupted

if TYPE_CHECKING:
    from failsoft.schemas.fleet.breaker import Action, Command
    from failsoft.workers.operations.breaker_view import BreakerRows

app = typer.Typer(invoke_without_command=True)

Target = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A model (all its versions), model@version, or dependency:schema_registry."),
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason; shown with the breaker and in its alert.")]
Who = Annotated[
    str | None,
    typer.Option("--who", metavar="NAME", help="The name of the operator. Default: USER@HOST.", show_default=False),
]
Wait = Annotated[
    float,
    typer.Option("--wait", metavar="SECONDS", min=0, help="Maximum wait until the owner obeys; 0 does not wait."),
]

WAIT = 10.0
"""Seconds. A dead owner is replaced within the session timeout of six, and the next owner reads the table first."""


def register(root: typer.Typer) -> None:
    """Adds the group to the command line."""
    root.add_typer(app, name="breakers")


@app.callback()
def breakers(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """List the fleet's breakers; open, close, disable or reset them.

    **Example**: `failsoft breakers`
    """
    if ctx.invoked_subcommand is None:
        _list(ctx, pipeline, as_json)
        return
    if as_json:
        raise typer.BadParameter(f"write --json after {ctx.invoked_subcommand}", param_hint="--json")
    ctx.obj.pipeline = pipeline or ctx.obj.pipeline


@app.command("list")
def list_(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """List the breakers: state, failure rates in the fleet, next step and reason; and the worker that owns them.

    A model without reports is listed as closed. A schema registry is listed as `dependency:schema_registry`.
    `failsoft breakers` without `list` does the same.

    **Example**: `failsoft breakers list --json | jq 'select(.state != "closed")'`
    """
    _list(ctx, pipeline, as_json)


@app.command("open")
def open_(
    ctx: typer.Context,
    model: Target,
    pipeline: Pipeline = None,
    why: Why = "",
    who: Who = None,
    wait: Wait = WAIT,
    as_json: Json = False,
) -> None:
    """Force a breaker open: the model is not called until another order. Fallbacks answer; retries wait.

    **Example**: `failsoft breakers open repayment@2 --why "scores drift since noon"`
    """
    _order(ctx, pipeline, "force_open", model, why, who, wait, as_json)


@app.command()
def close(
    ctx: typer.Context,
    model: Target,
    pipeline: Pipeline = None,
    why: Why = "",
    who: Who = None,
    wait: Wait = WAIT,
    as_json: Json = False,
) -> None:
    """Close a breaker: the model is called and counted again. A closed breaker keeps its state and counts.

    **Example**: `failsoft breakers close repayment@2`
    """
    _order(ctx, pipeline, "close", model, why, who, wait, as_json)


@app.command()
def disable(
    ctx: typer.Context,
    model: Target,
    pipeline: Pipeline = None,
    why: Why = "",
    who: Who = None,
    wait: Wait = WAIT,
    as_json: Json = False,
) -> None:
    """Disable a breaker: the model is always called, whatever its failure rate, until another order.

    **Example**: `failsoft breakers disable repayment --why "known errors, ticket 4711"`
    """
    _order(ctx, pipeline, "disable", model, why, who, wait, as_json)


@app.command()
def reset(
    ctx: typer.Context,
    model: Target,
    pipeline: Pipeline = None,
    why: Why = "",
    who: Who = None,
    wait: Wait = WAIT,
    as_json: Json = False,
) -> None:
    """Reset a breaker: closed, with empty counts. A closed breaker loses its counts too.

    **Example**: `failsoft breakers reset repayment`
    """
    _order(ctx, pipeline, "reset", model, why, who, wait, as_json)


def _list(ctx: typer.Context, pipeline: Path | None, as_json: bool) -> None:
    from failsoft.workers.operations import breaker_view
    from failsoft.workers.operations import breakers as fleets

    settings = context.settings(ctx, pipeline)
    policies = fleets.known(settings).policies

    async def read() -> tuple[BreakerRows, str | None]:
        async with fleets.fleet(settings) as fleet:
            rows = await fleet.refresh(bar)
        return rows, await fleets.owner(settings)

    with output.progress("reading breakers", "read") as bar:
        rows, owner = context.run(ctx, read(), (settings, Use.BREAKERS))
    about = [{**each, "owner": owner} for each in breaker_view.listed(rows, policies, now_ms())]
    columns = ["breaker", "state", "generation", "for", "failures", "slow", "next", "sick", "reason", "changed_by"]
    cells = [*map(breaker_view.shown, about)]
    # Empty columns are left out: a terminal may be narrow.
    some = [c for c in columns if any(each.get(c) not in (None, []) for each in cells)]
    _print(about, some, as_json, f"owner of the breakers: {owner or 'none'}")
    if owner is None:
        output.note("no worker owns the breakers: workers use their local breakers, and orders wait for an owner")


def _order(
    ctx: typer.Context,
    pipeline: Path | None,
    action: str,
    target: str,
    why: str,
    who: str | None,
    wait: float,
    as_json: bool,
) -> None:
    from failsoft.schemas.fleet.breaker import Action
    from failsoft.workers.operations import breaker_view
    from failsoft.workers.operations import breakers as fleets

    settings = context.settings(ctx, pipeline)
    files = fleets.known(settings)
    try:
        model = breaker_view.named_model(target, files.policies)
    except ValueError as e:
        raise typer.BadParameter(str(e), param_hint="MODEL") from None
    command = _command(target, Action(action), default_who() if who is None else who, why)
    sent = f"{ctx.info_name} of {target} is written to {settings.names.control}"
    later = f"{sent}, and will be obeyed when a worker owns the breakers; see: failsoft breakers"
    written = False

    async def work() -> list[dict[str, Any]]:
        nonlocal written
        async with fleets.fleet(settings) as fleet:
            before = await fleet.refresh(bar)
            try:
                breaker_view.check_version(target, model, files.keys | before.keys())
            except ValueError as e:
                raise typer.BadParameter(str(e), param_hint="MODEL") from None
            await fleets.send(settings, command)
            written = True
            obeyed = await fleet.obeyed(command, wait) if wait else {}
        new = breaker_view.listed(obeyed, {model: files.policies[model]}, now_ms()) if obeyed else []
        return [{**each, "was": breaker_view.state(before.get(each["breaker"]))} for each in new]

    try:
        with output.progress("reading breakers", "read") as bar:
            about = context.run(ctx, work(), (settings, Use.BREAKER_ORDERS))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Interrupted(f"interrupted: {later if written else 'nothing was written'}") from None
    if about:
        _print(about, ["breaker", "was", "state", "generation", "reason", "changed_by"], as_json)
        output.note(f"{ctx.info_name} of {target}: obeyed")
    elif wait:
        raise CommandFailed(f"not obeyed within {wait:g} s: {later}")
    else:
        output.note(sent)


def _command(target: str, action: Action, who: str, why: str) -> Command:
    """The command to send. Raises BadParameter if the owner would refuse it as malformed."""
    from failsoft.schemas.fleet.breaker import Command
    from failsoft.schemas.wire import Malformed

    command = Command(target, action, who, why, now_ms())
    try:
        return Command.parse(command.to_bytes())
    except (Malformed, ValueError) as e:
        raise typer.BadParameter(str(e)) from None


def _print(about: list[dict[str, Any]], columns: list[str], as_json: bool, title: str | None = None) -> None:
    from failsoft.workers.operations.breaker_view import shown

    output.rows(map(shown, about) if output.people(as_json) else about, columns, as_json, title)


def default_who() -> str:
    """The current user as USER@HOST."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def now_ms() -> int:
    """The wall clock in milliseconds since the epoch."""
    return int(time.time() * 1000)
