"""``failsoft models``: the versions in the model repository, vetted; and those that the fleet serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.workers.commands import context, output, versions
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import FAILED, CommandFailed

if TYPE_CHECKING:
    from failsoft.models.catalog.repository import Repository
    from failsoft.models.vetting.gate import Limits
    from failsoft.models.vetting.verdict import Vetting
    from failsoft.workers.operations.targets import Target as Version

app = typer.Typer(no_args_is_help=True)
versions.add(app)

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL[@VERSION]", help="A model, or one version of it. Else every model there is.", show_default=False
    ),
]
Where = Annotated[
    Path | None,
    typer.Option("--repository", metavar="DIR", help="The model repository. Else the pipeline's.", show_default=False),
]
Megabytes = Annotated[
    int | None,
    typer.Option(
        "--memory-mb",
        metavar="MB",
        min=1,
        help="What a model may take to load and run, beside the runtime and six times its file. "
        "Else the pipeline's vetting_memory_mb, else 512.",
        show_default=False,
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="DURATION",
        help="How long proving a version may take; half on the processor. Else the pipeline's vetting_time, else 60s.",
        show_default=False,
    ),
]


def register(root: typer.Typer) -> None:
    """Add the group to the command line."""
    root.add_typer(app, name="models")


@app.callback()
def models() -> None:
    """See which versions of a model may serve, and which the fleet does serve; move it from one to another.

    **Example**: `failsoft models vet`
    """


@app.command()
def vet(
    ctx: typer.Context,
    target: Target = None,
    pipeline: Pipeline = None,
    repository: Where = None,
    memory_mb: Megabytes = None,
    time: Time = None,
    as_json: Json = False,
) -> None:
    """Prove versions in a process of their own: checksum, memory, card, batches, golden vectors, NaN, time.

    A worker does the same before it serves a version. Needs no Kafka and, with --repository, no pipeline file.
    Exit 0 when all passed, 1 when one failed.

    **Example**: `failsoft models vet repayment@2`
    """
    from failsoft.models.catalog.repository import Repository, UnknownModel
    from failsoft.workers.operations.targets import targets

    root, limits = _bounds(ctx, pipeline, repository, memory_mb, time)
    models = Repository(root)
    try:
        found = targets(models, target)
    except UnknownModel as e:
        raise typer.BadParameter(str(e), param_hint="MODEL") from None
    if not found:
        example = root / (target or "MODEL") / "1" / "model.onnx"
        raise CommandFailed(
            f"{target or 'no model'} has {'no' if target else 'a'} complete version: put one at {example}"
        )
    verdicts: list[Vetting] = []
    # One at a time: each is told as soon as it is known, and a vetting that shares its core would look slow.
    with output.progress("vetting", "versions", len(found)) as on_progress:
        output.rows(
            _vetted(models, found, limits, verdicts, on_progress),
            ["model", "version", "check", "result", "message"],
            as_json,
        )
    failed = [v for v in verdicts if not v.passed]
    for verdict in failed:
        output.note(f"{verdict.key} failed: {', '.join(check.name for check in verdict.failed)}")
    output.note(f"{len(verdicts) - len(failed)} of {len(verdicts)} versions may serve")
    if failed:
        raise typer.Exit(FAILED)


def _bounds(
    ctx: typer.Context, pipeline: Path | None, repository: Path | None, memory_mb: int | None, time: str | None
) -> tuple[Path, Limits]:
    from failsoft.models.vetting.gate import Limits
    from failsoft.schemas.config import duration
    from failsoft.workers.serving import loader

    if repository is not None:
        limits, root = Limits(), repository
    else:
        settings = context.settings(ctx, pipeline)
        limits, root = loader.limits(settings), Path(settings.models.repository)
    memory, cpu, wall = limits.memory, limits.cpu, limits.wall
    if memory_mb is not None:
        memory = memory_mb * 1_000_000
    if time is not None:
        try:
            wall = duration.seconds(time)
        except ValueError as e:
            raise typer.BadParameter(str(e), param_hint="--time") from None
        cpu = wall / 2
    return root, Limits(memory=memory, cpu=cpu, wall=wall)


def _vetted(
    repository: Repository,
    found: list[Version],
    limits: Limits,
    verdicts: list[Vetting],
    on_progress: output.Progress,
) -> Iterator[dict[str, Any]]:
    """A row a check, as they are made; ``verdicts`` collects what they add up to."""
    from failsoft.models.vetting.gate import examine

    for done, (card, version) in enumerate(found, 1):
        verdict = examine(repository, card, version, limits)
        verdicts.append(verdict)
        on_progress(done)
        for check in verdict.checks:
            about = {"model": verdict.model, "version": verdict.version, "sha256": verdict.sha256}
            yield {**about, "check": check.name, "result": check.result.value, "message": check.message}
