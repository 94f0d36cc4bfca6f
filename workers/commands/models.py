"""``failsoft models``: vets the versions in the model repository, and shows and changes those that the fleet serves."""

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
    from failsoft.models.vetting.bounded_process import Limits
    from failsoft.models.vetting.verdict import Vetting
    from failsoft.workers.operations.targets import Target as Version

app = typer.Typer(no_args_is_help=True)
versions.add(app)

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL[@VERSION]", help="A model or one of its versions. Default: every model.", show_default=False
    ),
]
Where = Annotated[
    Path | None,
    typer.Option(
        "--repository", metavar="DIR", help="The model repository. Default: the pipeline's.", show_default=False
    ),
]
Megabytes = Annotated[
    int | None,
    typer.Option(
        "--memory-mb",
        metavar="MB",
        min=1,
        help="Memory limit of a vetting, beyond the runtime and six times the model file. "
        "Default: the pipeline's vetting_memory_mb, or 512.",
        show_default=False,
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="DURATION",
        help="Time limit of a vetting; processor time is limited to half of it. "
        "Default: the pipeline's vetting_time, or 60s.",
        show_default=False,
    ),
]


def register(root: typer.Typer) -> None:
    """Adds the group to the command line."""
    root.add_typer(app, name="models")


@app.callback()
def models() -> None:
    """Check model versions, see which versions the fleet serves, and switch between them.

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
    """Vet versions in a separate process: checksum, memory, card, batches, golden vectors, NaN, time.

    A worker runs the same checks before it serves a version. Needs no Kafka and, with --repository, no pipeline file.
    Exit code: 0 if all versions passed, 1 if one failed.

    **Example**: `failsoft models vet repayment@2`
    """
    from failsoft.models.catalog.repository import Repository, UnknownModel
    from failsoft.workers.operations.targets import targets

    root, limits = _bounds(ctx, pipeline, repository, memory_mb, time)
    models = Repository(root)
    try:
        versions = targets(models, target)
    except UnknownModel as e:
        raise typer.BadParameter(str(e), param_hint="MODEL") from None
    if not versions:
        example = root / (target or "MODEL") / "1" / "model.onnx"
        raise CommandFailed(
            f"{target or 'no model'} has {'no' if target else 'a'} complete version: copy a model to {example}"
        )
    verdicts: list[Vetting] = []
    # One version at a time: each result is printed at once, and two vettings on one core would both look slow.
    with output.progress("vetting", "versions", len(versions)) as on_progress:
        output.rows(
            _vetted(models, versions, limits, verdicts, on_progress),
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
    from failsoft.models.vetting.bounded_process import Limits
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
    versions: list[Version],
    limits: Limits,
    verdicts: list[Vetting],
    on_progress: output.Progress,
) -> Iterator[dict[str, Any]]:
    """Vets ``versions`` one after the other; yields a row for each check and appends each verdict to ``verdicts``."""
    from failsoft.models.vetting.gate import examine

    for done, (card, version) in enumerate(versions, 1):
        verdict = examine(repository, card, version, limits)
        verdicts.append(verdict)
        on_progress(done)
        for check in verdict.checks:
            about = {"model": verdict.model, "version": verdict.version, "sha256": verdict.sha256}
            yield {**about, "check": check.name, "result": check.result.value, "message": check.message}
