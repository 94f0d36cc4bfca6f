"""``failsoft topics``: create, verify and print a pipeline's topology."""

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
    """Add the group to the command line."""
    root.add_typer(app, name="topics")


@app.callback()
def topics() -> None:
    """Create, verify and print the pipeline's topics.

    **Example**: `failsoft topics apply`
    """


@app.command()
def apply(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Create the topics that are missing, verify those that exist; safe to repeat.

    Refuses, with every reason, what would break the promise: nothing is created then.

    **Example**: `failsoft topics apply --pipeline car-loans/`
    """
    from failsoft.topics import admin
    from failsoft.workers.settings import wanted

    settings = context.settings(ctx, pipeline)
    topology, created = context.run(ctx, admin.apply(settings.connection(), wanted(settings)))
    news = [{"name": t.name, "result": "created" if t.name in created else "verified"} for t in topology.topics]
    output.rows(news, ["name", "result"], as_json)
    output.note(f"{len(created)} topics created, {len(news) - len(created)} verified")


@app.command()
def show(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Print each topic: what it is for, its partitions and retention, whether it exists, and what is wrong with it.

    Exits 1 when a topic is missing or would break the promise.

    **Example**: `failsoft topics show --json | jq .name`
    """
    from failsoft.workers.settings import wanted

    settings = context.settings(ctx, pipeline)

    async def look() -> Topology:
        from failsoft.topics import admin

        async with admin.connect(settings.connection()) as client:
            return await admin.describe(client, wanted(settings))

    found = table(context.run(ctx, look()))
    output.rows(found, ["name", "role", "partitions", "retention", "present", "problems"], as_json)
    absent = sum(not row["present"] for row in found)
    wrong = sum(bool(row["problems"]) for row in found)
    if absent or wrong:
        hint = "see the problems: topics apply changes no topic that exists" if wrong else "try: failsoft topics apply"
        raise CommandFailed(f"{absent} topics are missing and {wrong} have problems; {hint}")


def table(topology: Topology) -> list[dict[str, Any]]:
    """A row a topic. ``retention`` is for people, ``retention_ms`` is -1 for ever and None for what does not exist."""
    from failsoft.topics.layout import problems

    said: dict[str, list[str]] = {}
    for problem in problems(topology.topics, topology.existing):
        name, _, text = problem.partition(": ")
        said.setdefault(name, []).append(text)
    found = []
    for topic in topology.topics:
        there = topology.existing.get(topic.name)
        configs = there.configs if there else topic.configs
        kept = int(configs["retention.ms"]) if "retention.ms" in configs else None
        compacted = configs.get("cleanup.policy") == "compact"
        found.append(
            {
                "name": topic.name,
                "role": topic.role,
                "partitions": there.partitions if there else topic.partitions,
                "retention": "compacted" if compacted else _days(kept),
                "retention_ms": kept,
                "present": there is not None,
                "problems": said.get(topic.name, []),
            }
        )
    return found


def _days(ms: int | None) -> str | None:
    if ms is None:
        return None
    return "for ever" if ms < 0 else f"{ms / 86_400_000:.3g} days"
