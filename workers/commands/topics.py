"""``failsoft topics``: creates, verifies and prints a pipeline's topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import CommandFailed

if TYPE_CHECKING:
    from failsoft.topics.layout import Topology

app = typer.Typer(no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Adds the group to the command line."""
    root.add_typer(app, name="topics")


@app.callback()
def topics() -> None:
    """Create, verify and print the pipeline's topics.

    **Example**: `failsoft topics apply`
    """


@app.command()
def apply(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Create the missing topics and verify the existing ones. Safe to repeat.

    If an existing topic breaks a guarantee of the pipeline, nothing is created and every problem is printed.

    **Example**: `failsoft topics apply --pipeline car-loans/`
    """
    from failsoft.topics import admin
    from failsoft.workers.settings import wanted

    settings = context.settings(ctx, pipeline)
    topology, created = context.run(ctx, admin.apply(settings.connection(), wanted(settings)))
    results = [{"name": t.name, "result": "created" if t.name in created else "verified"} for t in topology.topics]
    output.rows(results, ["name", "result"], as_json)
    output.note(f"{len(created)} topics created, {len(results) - len(created)} verified")


@app.command()
def show(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Print each topic: purpose, partitions, retention, whether it exists, and its problems.

    Exit code 1 if a topic is missing or has a problem.

    **Example**: `failsoft topics show --json | jq .name`
    """
    from failsoft.workers.settings import wanted

    settings = context.settings(ctx, pipeline)

    async def describe() -> Topology:
        from failsoft.topics import admin

        async with admin.connect(settings.connection()) as client:
            return await admin.describe(client, wanted(settings))

    rows = table(context.run(ctx, describe()))
    output.rows(rows, ["name", "role", "partitions", "retention", "present", "problems"], as_json)
    absent = sum(not row["present"] for row in rows)
    wrong = sum(bool(row["problems"]) for row in rows)
    if absent or wrong:
        hint = "fix them yourself: topics apply changes no existing topic" if wrong else "try: failsoft topics apply"
        raise CommandFailed(f"{absent} topics are missing and {wrong} have problems; {hint}")


def table(topology: Topology) -> list[dict[str, Any]]:
    """One row for each topic. ``retention`` is text; ``retention_ms`` is -1 for unlimited, None if it is not set."""
    from failsoft.topics.layout import problems

    by_topic: dict[str, list[str]] = {}
    for problem in problems(topology.topics, topology.existing):
        name, _, text = problem.partition(": ")
        by_topic.setdefault(name, []).append(text)
    rows = []
    for topic in topology.topics:
        existing = topology.existing.get(topic.name)
        configs = existing.configs if existing else topic.configs
        kept = int(configs["retention.ms"]) if "retention.ms" in configs else None
        compacted = configs.get("cleanup.policy") == "compact"
        rows.append(
            {
                "name": topic.name,
                "role": topic.role,
                "partitions": existing.partitions if existing else topic.partitions,
                "retention": "compacted" if compacted else _days(kept),
                "retention_ms": kept,
                "present": existing is not None,
                "problems": by_topic.get(topic.name, []),
            }
        )
    return rows


def _days(ms: int | None) -> str | None:
    if ms is None:
        return None
    return "for ever" if ms < 0 else f"{ms / 86_400_000:.3g} days"
