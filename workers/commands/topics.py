"""``failsoft topics``: creates, verifies and prints a pipeline's topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from failsoft.topics.rights import Grantee, NotAuthorised, Operation, Right, Use
from failsoft.workers.commands import context, output
from failsoft.workers.commands.context import Json, Pipeline
from failsoft.workers.commands.error_codes import CommandFailed

if TYPE_CHECKING:
    from failsoft.topics.layout import Topology
    from failsoft.workers.operations.answer_subject import AnswerSubject
    from failsoft.workers.operations.left_behind import LeftBehind
    from failsoft.workers.settings import Settings

MOST_PARTITIONS = 10_000
"""A typing error of some digits must not reach the cluster: partitions cannot be taken away."""

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
def apply(
    ctx: typer.Context,
    pipeline: Pipeline = None,
    as_json: Json = False,
    grow: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_PARTITIONS,
            help="Give each topic with events this number of partitions, while workers run; the inputs come last.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Create the missing topics and verify the existing ones. Safe to repeat.

    If an existing topic breaks a guarantee of the pipeline, or a dropped one still holds events, nothing is created and
    every problem is printed. Two settings of the pipeline's own topics are changed: the record limit, when an input's
    has outgrown it, and whose time the records of the fleet's topics have. With --grow, the topics with events get more
    partitions, also the inputs: keys may move to others.

    With `format = "avro"` in `[output]`, the schema of answers is registered as `<name>.scored-value`. If the
    registry would refuse it, its words are printed and nothing is created.

    **Example**: `failsoft topics apply --pipeline car-loans/`
    """
    from failsoft.workers.operations import topology
    from failsoft.workers.settings import wanted

    settings = context.settings(ctx, pipeline)
    context.run(ctx, _refuse_left_behind(settings), (settings, Use.APPLY))
    subject = _answer_subject(ctx, settings)
    if grow is not None:
        _grow(ctx, settings, grow, as_json)
        return
    work = topology.apply(settings.connection(), wanted(settings))
    done = context.run(ctx, work, (settings, Use.APPLY))
    changed = {change.topic for change in done.changed}
    results = [
        {
            "name": t.name,
            "result": "created" if t.name in done.created else "changed" if t.name in changed else "verified",
        }
        for t in done.topology.topics
    ]
    output.rows(results, ["name", "result"], as_json)
    for change in done.changed:
        output.note(f"{change.topic}: {change.key} was {change.old} and is {change.new}")
    for topic, why in done.refused.items():
        output.note(f"{topic}: its settings were not changed, and no worker needs that: {why}")
    verified = len(results) - len(done.created) - len(changed)
    output.note(f"{len(done.created)} topics created, {len(changed)} changed, {verified} verified")
    for topic in settings.input.topics:
        if topic in done.created:
            output.note(
                f"{topic} is an input, was not there and is empty: if other topics have your events, name them "
                "in [input] topics"
            )
    if subject is not None:
        _register(ctx, settings, subject)


def _answer_subject(ctx: typer.Context, settings: Settings) -> AnswerSubject | None:
    """The subject of answers in Avro, before anything is changed; None where they are JSON."""
    from failsoft.workers.schema_registry import answer_schema

    if not answer_schema.is_avro(settings):
        return None
    from failsoft.workers.operations import answer_subject

    return context.run(ctx, answer_subject.look(settings), (settings, Use.APPLY))


def _register(ctx: typer.Context, settings: Settings, subject: AnswerSubject) -> None:
    from failsoft.workers.operations import answer_subject

    id = context.run(ctx, answer_subject.register(settings, subject), (settings, Use.APPLY))
    if subject.silent is not None:
        output.note(f"{subject.name}: schema id {id}, as before; the registry was not asked: {subject.silent}")
        return
    output.note(f"{subject.name}: schema id {id} {'verified' if subject.latest is not None else 'registered'}")
    if subject.kept not in (None, id):
        output.note(f"{subject.name}: answers had schema id {subject.kept}; workers take {id} when they start again")


async def _refuse_left_behind(settings: Settings) -> None:
    """Raises TopologyRefused if a dropped topic holds events that nobody reads."""
    from failsoft.topics import admin
    from failsoft.workers.operations.left_behind import left_behind
    from failsoft.workers.settings import wanted

    async with admin.connect(settings.connection()) as client:
        found = await admin.describe(client, wanted(settings))
    dropped = await left_behind(settings, found)
    if lines := [f"{each.topic}: {each.problem}" for each in dropped if each.problem]:
        raise admin.TopologyRefused(lines)


def _grow(ctx: typer.Context, settings: Settings, partitions: int, as_json: bool) -> None:
    """Grow the topics, and say what it does before it does it."""
    from failsoft.topics import admin
    from failsoft.topics.growth import Growth
    from failsoft.topics.layout import Role
    from failsoft.workers.settings import wanted

    def began(step: Growth) -> None:
        if step.role is Role.INPUT:
            output.note(
                f"{step.topic}: events with a key move to another partition where the producer's partitioner says so. "
                "From here on they are not in order with their key's earlier events, and last_known has no memory of "
                "them in their new lane"
            )
        output.note(f"{step.topic}: {step.old} partitions become {step.new}")

    created, steps = context.run(ctx, admin.grow(settings.connection(), wanted(settings), partitions, began))
    results: list[dict[str, Any]] = [{"name": name, "result": "created", "partitions": partitions} for name in created]
    results += [{"name": step.topic, "result": "grown", "partitions": step.new} for step in steps]
    output.rows(results, ["name", "result", "partitions"], as_json)
    output.note(
        f"{len(created)} topics created, {len(steps)} grown to {partitions} partitions; workers that run notice within "
        "seconds"
    )


@app.command()
def show(ctx: typer.Context, pipeline: Pipeline = None, as_json: Json = False) -> None:
    """Print each topic: purpose, partitions, retention, whether it exists, and its problems.

    Exit code 1 if a topic is missing or has a problem, or if your user may not see a topic or its settings. A warning
    says what a long stop or a slow ladder would lose.

    **Example**: `failsoft topics show --json | jq .name`
    """
    from failsoft.topics.retention import warnings
    from failsoft.workers.settings import wanted

    settings = context.settings(ctx, pipeline)

    async def describe() -> tuple[Topology, int | None, NotAuthorised | None, list[LeftBehind]]:
        from failsoft.topics import admin
        from failsoft.workers.kafka import access
        from failsoft.workers.operations.left_behind import left_behind

        async with admin.connect(settings.connection()) as client:
            found, kept = await admin.describe(client, wanted(settings)), await admin.offsets_retention_ms(client)
        if all(t.name in found.existing and found.existing[t.name].readable for t in found.topics):
            return found, kept, None, await left_behind(settings, found)
        lacking = await access.lacking(settings, access.needed(settings, Use.SHOW))
        refusal = NotAuthorised(lacking, Grantee.of(settings.connection())) if lacking else None
        if refusal is not None and any(right.operation is Operation.DESCRIBE for right in lacking):
            raise refusal  # a topic that may not be seen looks as if it did not exist
        return found, kept, refusal, await left_behind(settings, found)

    topology, kept, refusal, dropped = context.run(ctx, describe(), (settings, Use.SHOW))
    short = warnings(topology.topics, topology.existing, kept)
    rows = [{**row, "warnings": short.get(row["name"], [])} for row in table(topology)]
    for each in dropped:
        if each.problem:
            role = "retry, dropped" if each.rung else "input, dropped"
            known = {"name": each.topic, "role": role, "present": True, "problems": [each.problem], "warnings": []}
            rows.append(dict.fromkeys(rows[0]) | known)
        else:
            output.note(f"{each.topic}: {each.note}")
    output.rows(rows, ["name", "role", "partitions", "retention", "present", "problems"], as_json)
    for row in rows:
        for warning in row["warnings"]:
            output.note(f"warning: {row['name']}: {warning}")
    absent = sum(not row["present"] for row in rows)
    wrong = sum(bool(row["problems"]) for row in rows)
    if absent or wrong:
        hint = "each says what mends it" if wrong else "try: failsoft topics apply"
        raise CommandFailed(f"{absent} topics are missing and {wrong} have problems; {hint}")
    if refusal is not None:
        raise refusal


Principal = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE:NAME",
        help="Kafka's name of the user, such as User:scoring. Default: the pipeline's own.",
        show_default=False,
    ),
]
For = Annotated[
    list[Use] | None,
    typer.Option("--for", help="What the rights are for; may be repeated. Default: worker.", show_default=False),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Name every topic. Without it, worker, apply and show get one prefix for the pipeline's own topics.",
    ),
]


@app.command()
def acl(
    ctx: typer.Context,
    principal: Principal = None,
    use: For = None,
    exact: Exact = False,
    pipeline: Pipeline = None,
    as_json: Json = False,
) -> None:
    """Print the `kafka-acls.sh` commands that grant a user the rights of a worker, or of other commands.

    It needs no Kafka and changes nothing. docs/permissions.md has the table of rights.

    **Example**: `failsoft topics acl --principal User:scoring --for worker | jq -r .command | sh -x`
    """
    from failsoft.topics.rights import widened
    from failsoft.workers.kafka.access import needed

    settings = context.settings(ctx, pipeline)
    if principal is not None and not all(principal.partition(":")):
        raise typer.BadParameter(f"{principal!r} is not TYPE:NAME, such as User:scoring", param_hint="--principal")
    wanted: list[Right] = []
    for each in use or [Use.WORKER]:
        rights = needed(settings, each)
        wanted += widened(rights, settings.names) if each.covers_all and not exact else rights
    own = _own_principal(settings)
    to = Grantee(principal or own, settings.kafka.bootstrap_servers)
    commands = to.commands(wanted)
    if principal is None and own == "User:ANONYMOUS":
        output.note("warning: User:ANONYMOUS is everyone who connects without a login: name a user with --principal")
    elif principal is None and own == "User:PRINCIPAL":
        output.note("the broker derives the user from a certificate or a token: name it with --principal")
    if output.people(as_json):
        for command in commands:
            output.line(command.encode())
    else:
        output.rows([{"command": command} for command in commands], ["command"], as_json)


def _own_principal(settings: Settings) -> str:
    k = settings.kafka
    user = {"sasl_plain_username": k.sasl_username} if k.security_protocol.startswith("SASL") else {}
    return Grantee.of({"bootstrap_servers": "", "security_protocol": k.security_protocol, **user}).principal


def table(topology: Topology) -> list[dict[str, Any]]:
    """One row for each topic. ``retention`` is text; ``retention_ms`` is -1 for unlimited, None if it is not set."""
    from failsoft.topics.growth import uneven
    from failsoft.topics.layout import problems

    by_topic: dict[str, list[str]] = {}
    for problem in problems(topology.topics, topology.existing) + uneven(topology.topics, topology.existing):
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
