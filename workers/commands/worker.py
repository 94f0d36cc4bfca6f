"""``failsoft worker``: runs one worker process, or several under a supervisor."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Pipeline
from failsoft.workers.commands.error_codes import UNREACHABLE

if TYPE_CHECKING:
    from failsoft.workers.settings import Settings


MOST_PROCESSES = 256
AUTO = "auto"


def register(root: typer.Typer) -> None:
    """Adds the command to the command line."""
    root.command("worker")(worker)


def worker(
    ctx: typer.Context,
    pipeline: Pipeline = None,
    processes: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Number of worker processes; of several, crashed ones are restarted. auto: one for each core but one.",
        ),
    ] = "1",
    worker_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            help="The worker's id: unique, and the same after each restart. Default: FAILSOFT_WORKER_ID, then HOST-N.",
            show_default=False,
        ),
    ] = None,
    metrics_port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="The port of /metrics, /livez and /readyz; process i takes PORT + i. 0: a free port."
        ),
    ] = 0,
    metrics_host: Annotated[str, typer.Option(help="The address of /metrics, /livez and /readyz.")] = "127.0.0.1",
    repository: Annotated[
        Path | None, typer.Option(help="The model repository, instead of the pipeline file's.", show_default=False)
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="The lowest level to log: debug, info, warning, error or critical.")
    ] = "info",
) -> None:
    """Run a worker: read events, score them, write the answers. SIGTERM drains it and ends it.

    All workers of a pipeline, on any machine, share its partitions.

    **Example**: `failsoft worker --processes 2 --metrics-port 9100`
    """
    signal.signal(signal.SIGTERM, _exit_at_once)  # until the running worker or the supervisor installs its own
    from failsoft.workers.telemetry import logs

    count = _count(processes)
    try:
        logs.configure(log_level)
    except ValueError as e:
        raise typer.BadParameter(str(e), param_hint="--log-level") from None
    folder = str(repository.absolute()) if repository else None
    settings = context.settings(ctx, pipeline, {"models.repository": folder})
    worker_id = worker_id or os.environ.get("FAILSOFT_WORKER_ID") or None
    if count > 1 or processes == AUTO:  # the same ids and restarts on one core as on many
        _check_topics(ctx, settings)
        drain = settings.kafka.timeouts.end
        raise typer.Exit(_many(ctx, pipeline, count, worker_id, metrics_port, metrics_host, folder, log_level, drain))
    raise typer.Exit(_one(settings, worker_id, metrics_port, metrics_host, pipeline or ctx.obj.pipeline))


def _count(processes: str) -> int:
    """The number of processes. Raises BadParameter for anything but a number from 1 to 256, or ``auto``."""
    if processes == AUTO:
        from failsoft.workers.process.cores import auto_processes

        return auto_processes()
    if processes.isascii() and processes.isdigit() and len(processes) <= 3 and 1 <= int(processes) <= MOST_PROCESSES:
        return int(processes)
    raise typer.BadParameter(
        f"{processes!r}: must be a number from 1 to {MOST_PROCESSES}, or auto", param_hint="--processes"
    )


def _check_topics(ctx: typer.Context, settings: Settings) -> None:
    """Refuses to start workers that would all find their topics missing or wrong: they would say so again and again.

    Exits with UNREACHABLE if topics are missing. Raises TopologyRefused if they are wrong, or if answers are Avro and
    their schema is not kept; NotAuthorised if a worker's rights are wrong, and KafkaUnreachable if the brokers refuse
    this client. If no broker answers, the workers are started all the same: they wait for it.
    """
    from failsoft.topics import admin
    from failsoft.workers.process import permission
    from failsoft.workers.schema_registry import answer_schema

    try:
        context.run(ctx, permission.verified(settings))
        context.run(ctx, answer_schema.required(settings))
    except admin.KafkaUnreachable as e:
        context.run(ctx, admin.check(settings.connection()))
        _say(f"the topics cannot be checked yet: {e}")
    except admin.TopicsMissing as e:
        _say(f"{', '.join(e.names)}: no such topic; create them with: failsoft topics apply")
        raise typer.Exit(UNREACHABLE) from None


def _exit_at_once(number: int, frame: object) -> None:
    """Handles SIGTERM during the start, when there is nothing to drain yet."""
    raise SystemExit(0)


def _say(text: str, more: str = "", **fields: object) -> None:
    """Prints news to stderr: on a terminal ``text`` and ``more``, else one line of the JSON log with ``fields``."""
    if sys.stderr.isatty():
        output.note(f"{text}\n{more}" if more else text)
        return
    from failsoft.workers.telemetry import logs

    logs.log_always(text, **fields)


def _one(settings: Settings, worker_id: str | None, port: int, host: str, file: Path | None) -> int:
    # Claimed before the imports, which take seconds, so that a duplicate id is refused at once.
    from failsoft.workers.identity import claim

    identity = claim(settings.name, worker_id)

    from failsoft.workers.process import serve
    from failsoft.workers.process.composition import Options

    warn_without_model(settings, _say)

    def ready(address: str) -> None:
        text = f"worker {identity.id} of {settings.name} is ready: {address}/metrics, /livez, /readyz"
        where = {"kafka": settings.kafka.bootstrap_servers, "answers": settings.names.scored}
        of = f" --pipeline {shlex.quote(str(file))}" if file else ""
        commands = [f"failsoft {command}{of}" for command in ("publish FILE", "tail", "breakers")]
        data = f"its answers are in {where['answers']}, in Kafka at {where['kafka']}"
        _say(text, f"{data}\n{output.next_commands(commands)}", **where, next=commands)

    try:
        return serve.run(settings, Options(identity.id, port, host), ready)
    finally:
        identity.release()


def warn_without_model(settings: Settings, say: Callable[[str], None]) -> None:
    """Prints what to do if the primary, or a member of a primary ensemble, has no version yet; that is not an error."""
    from failsoft.models.catalog.repository import Repository, UnknownModel

    repository = Repository(Path(settings.models.repository))
    try:
        ensemble = repository.card(settings.model).ensemble
        for model in (settings.model,) if ensemble is None else ensemble.names:
            if repository.versions(model, mistaken=lambda error: None):  # the worker logs the mistakes
                continue
            effect = (
                "the fallback will answer every event" if ensemble is None else f"{settings.model} answers without it"
            )
            path = repository.root / model / "1" / "model.onnx"
            say(f"{model} has no complete version, so {effect}: copy the model to {path} and start the worker again")
    except UnknownModel:
        return  # the worker itself refuses the pipeline, with the details


def _many(
    ctx: typer.Context,
    pipeline: Path | None,
    processes: int,
    worker_id: str | None,
    port: int,
    host: str,
    repository: str | None,
    log_level: str,
    drain: float,
) -> int:
    from failsoft.workers.process import supervisor

    file = pipeline or ctx.obj.pipeline
    shared = ["--metrics-host", host, "--log-level", log_level]
    shared += ["--pipeline", str(file.absolute())] if file else []
    shared += ["--repository", repository] if repository else []
    commands = []
    for i in range(processes):
        own = ["--metrics-port", str(port + i if port else 0)]
        # Without --id each process takes a free id, so that two supervisors on one machine do not collide.
        own += ["--id", f"{worker_id}-{i}"] if worker_id else []
        commands.append(supervisor.command(["worker", *shared, *own]))
    _say(f"supervisor {os.getpid()} starts {processes} workers")
    return supervisor.run(commands, drain)
