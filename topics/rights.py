"""The rights (access control lists) that each command needs, as one table. docs/permissions.md is made from it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from failsoft.topics.layout import Role, Topic
from failsoft.topics.names import Names


class Operation(StrEnum):
    """Kafka's operations that failsoft needs. Read and Write each include Describe of the same resource."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"
    ALTER = "Alter"
    ALTER_CONFIGS = "AlterConfigs"
    IDEMPOTENT_WRITE = "IdempotentWrite"


class Resource(StrEnum):
    """The kinds of resources, as the options of ``kafka-acls.sh`` name them."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"
    CLUSTER = "cluster"


class Own(StrEnum):
    """What a pipeline has besides topics."""

    GROUP = "<name>"
    CONTROL_GROUP = "<name>.control-plane"
    WORKER_IDS = "<name>."
    REPLAYER_ID = "<name>.replayer"
    OPERATOR_ID = "<name>.operator"


class Without(StrEnum):
    """What a worker or a command does without a right."""

    REFUSES = "refuses to start"
    LOCAL = "scores with its local breakers only: `failsoft_control_plane_up` is 0"
    UNVERIFIED = "says once that the topic's settings are not verified, and goes on"


class Use(StrEnum):
    """What needs rights. The value is the word for ``failsoft topics acl --for``."""

    WORKER = "worker"
    APPLY = "apply"
    SHOW = "show"
    DEAD = "dead"
    REPLAY = "replay"
    BREAKERS = "breakers"
    BREAKER_ORDERS = "breaker-orders"
    MODELS = "models"
    MODEL_ORDERS = "model-orders"
    OFFSETS = "offsets"
    OFFSET_ORDERS = "offset-orders"
    TAIL = "tail"
    PUBLISH = "publish"

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that need these rights."""
        return _COMMANDS[self]

    @property
    def covers_all(self) -> bool:
        """Whether it needs all of a pipeline's topics. To others a prefix would give what they do not need: to whom
        publishes, Write on the operators' commands.
        """
        return self in (Use.WORKER, Use.APPLY, Use.SHOW)


_COMMANDS: Mapping[Use, tuple[str, ...]] = {
    Use.WORKER: ("worker",),
    Use.APPLY: ("topics apply",),
    Use.SHOW: ("topics show",),
    Use.DEAD: ("dead list", "dead show"),
    Use.REPLAY: ("dead replay",),
    Use.BREAKERS: ("breakers",),
    Use.BREAKER_ORDERS: ("breakers open", "breakers close", "breakers disable", "breakers reset"),
    Use.MODELS: ("models list", "models history"),
    Use.MODEL_ORDERS: ("models promote", "models rollback"),
    Use.OFFSETS: ("offsets show", "offsets history"),
    Use.OFFSET_ORDERS: ("offsets repair", "offsets rewind", "offsets skip"),
    Use.TAIL: ("tail",),
    Use.PUBLISH: ("publish",),
}


EVERY = tuple(Role)
"""All topics of a pipeline, its inputs included."""

On = Role | Own | str | tuple[Role, ...]


@dataclass(frozen=True, slots=True)
class Need:
    """One row of the table.

    Attributes:
        on: the topics of a role, one topic by its name after ``<name>``, EVERY topic, or a group or transactional id.
        operations: what must be allowed.
        why: what it is for.
        without: what happens without it.
    """

    on: On
    operations: tuple[Operation, ...]
    why: str
    without: Without = Without.REFUSES


_READ, _WRITE, _BOTH = (Operation.READ,), (Operation.WRITE,), (Operation.READ, Operation.WRITE)
_VERIFY, _LOCAL = (Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS), Without.LOCAL
BREAKERS_TABLE, ROLLOUTS_TABLE = "-breakers-changelog", "-rollouts-changelog"

_STANDINGS = (
    Need(Role.INPUT, _READ, "the logs of the events, and the offsets in them"),
    Need(Role.RETRY, _READ, "the same of the rungs, and what was answered of them"),
    Need(Role.REPLAY, _READ, "the same of the replays"),
    Need(Role.SCORED, _READ, "what was answered"),
    Need(Role.DEAD, _READ, "what was answered"),
)

_EVENT_SCHEMAS = "the schemas of events (with `[input] format` Avro or Protobuf, or such CloudEvents)"

NEEDS: Mapping[Use, tuple[Need, ...]] = {
    Use.WORKER: (
        Need(Role.INPUT, _READ, "the events, and their offsets"),
        Need(Role.SCORED, _BOTH, "the answers; read when a lane opens, to see what was answered"),
        Need(Role.RETRY, _BOTH, "the ladder of retries, and its offsets"),
        Need(Role.DEAD, _BOTH, "the dead letters; looked up when one comes back on an input topic"),
        Need(Role.REPLAY, _BOTH, "replayed dead letters, and letters that come back on an input topic"),
        Need(Own.GROUP, _READ, "the workers' group, and its offsets"),
        Need(Own.WORKER_IDS, _WRITE, "transactions, one id a worker (with `exactly_once` only)"),
        Need(Role.OUTCOMES, _BOTH, "reports to the owner of the breakers", _LOCAL),
        Need(Role.CONTROL, _READ, "operators' commands", _LOCAL),
        Need(Role.ALERTS, _WRITE, "alerts as events", _LOCAL),
        Need(Role.CHANGELOG, _BOTH, "the tables of breakers and of rollouts", _LOCAL),
        Need(Own.CONTROL_GROUP, _READ, "the group that elects the owner of the breakers", _LOCAL),
        Need(Role.SCHEMAS, _BOTH, "the schemas of events (with `[schema_registry]` only)"),
        Need(EVERY, (Operation.DESCRIBE_CONFIGS,), "verifies retention and compaction", Without.UNVERIFIED),
    ),
    Use.APPLY: (
        Need(EVERY, _VERIFY, "verifies what exists"),
        Need(EVERY, (Operation.CREATE,), "creates what is missing; not needed afterwards"),
        Need(Role.SCHEMAS, _BOTH, 'keeps the schema of answers (with `format = "avro"` in `[output]` only)'),
        Need(Own.GROUP, (Operation.DESCRIBE,), "who reads topics that were dropped, and how far"),
    ),
    Use.SHOW: (
        Need(EVERY, _VERIFY, "verifies what exists"),
        Need(Own.GROUP, (Operation.DESCRIBE,), "who reads topics that were dropped, and how far"),
    ),
    Use.DEAD: (
        Need(Role.DEAD, _READ, "the dead letters"),
        Need(Role.REPLAY, _READ, "tells which were replayed"),
        Need(Role.SCHEMAS, _READ, _EVENT_SCHEMAS),
    ),
    Use.REPLAY: (
        Need(Role.DEAD, _READ, "the dead letters"),
        Need(Role.REPLAY, _BOTH, "replays, and tells which were replayed"),
        Need(Own.REPLAYER_ID, _WRITE, "replays in transactions, one replay at a time"),
        Need(Role.SCHEMAS, _READ, _EVENT_SCHEMAS),
    ),
    Use.BREAKERS: (
        Need(BREAKERS_TABLE, _READ, "the table of breakers"),
        Need(Own.CONTROL_GROUP, (Operation.DESCRIBE,), "who owns the breakers"),
    ),
    Use.BREAKER_ORDERS: (
        Need(BREAKERS_TABLE, _READ, "the table of breakers, for the answer"),
        Need(Role.CONTROL, _WRITE, "the command"),
    ),
    Use.MODELS: (
        Need(BREAKERS_TABLE, _READ, "the table of breakers"),
        Need(ROLLOUTS_TABLE, _READ, "the table of rollouts"),
    ),
    Use.MODEL_ORDERS: (
        Need(ROLLOUTS_TABLE, _READ, "the table of rollouts, for the answer"),
        Need(Role.CONTROL, _WRITE, "the order"),
    ),
    Use.OFFSETS: (
        *_STANDINGS,
        Need(Own.GROUP, (Operation.DESCRIBE,), "the committed offsets"),
        Need(Role.ALERTS, _READ, "the history of orders"),
    ),
    Use.OFFSET_ORDERS: (
        *_STANDINGS,
        Need(Own.GROUP, _READ, "moves the committed offsets"),
        Need(Role.ALERTS, _WRITE, "the history of orders, and what is lost"),
        Need(Own.OPERATOR_ID, _WRITE, "offset and history in one transaction"),
    ),
    Use.TAIL: (Need(Role.SCORED, _READ, "the answers"),),
    Use.PUBLISH: (Need(Role.INPUT, _WRITE, "the events"),),
}
"""Every right, by use. tests/integration/test_permissions.py grants and removes them one by one on a real broker."""


@dataclass(frozen=True, slots=True)
class Right:
    """One right of one principal.

    Attributes:
        resource: the kind of the resource.
        name: its name, or the beginning of its name; "" for the cluster.
        operation: what is allowed.
        prefixed: whether ``name`` is the beginning of a name.
        without: what happens without it.
    """

    resource: Resource
    name: str
    operation: Operation
    prefixed: bool = False
    without: Without = field(default=Without.REFUSES, compare=False)

    def __str__(self) -> str:
        return f"{self.operation} {self.resource} {self.name}{'*' if self.prefixed else ''}".rstrip()


def rights(
    use: Use,
    names: Names,
    topics: Iterable[Topic],
    exactly_once: bool = True,
    avro_answers: bool = False,
    json_events: bool = True,
) -> list[Right]:
    """The rights that ``use`` needs, each by its exact name but for the transactional ids of workers.

    ``topics`` are the pipeline's (``layout``). ``avro_answers``: answers are Avro, and ``topics apply`` keeps their
    schema. ``json_events``: events are read without schemas, and so are dead letters.
    """
    spared = {Use.APPLY: not avro_answers, Use.DEAD: json_events, Use.REPLAY: json_events}
    topics = list(topics)
    found: list[Right] = []
    for need in NEEDS[use]:
        if need.on is Own.WORKER_IDS and not exactly_once:
            continue
        if need.on is Role.SCHEMAS and spared.get(use, False):
            continue
        for resource, name in _resources(need.on, names, topics):
            prefixed = need.on is Own.WORKER_IDS
            found += [Right(resource, name, operation, prefixed, need.without) for operation in need.operations]
    return found


def _resources(on: On, names: Names, topics: Sequence[Topic]) -> list[tuple[Resource, str]]:
    if isinstance(on, Role | tuple):
        roles = (on,) if isinstance(on, Role) else on
        return [(Resource.TOPIC, topic.name) for topic in topics if topic.role in roles]
    match on:
        case Own.GROUP:
            return [(Resource.GROUP, names.group)]
        case Own.CONTROL_GROUP:
            return [(Resource.GROUP, names.control_group)]
        case Own.WORKER_IDS:
            return [(Resource.TRANSACTIONAL_ID, names.transactional_id(""))]
        case Own.REPLAYER_ID:
            return [(Resource.TRANSACTIONAL_ID, names.replayer_id)]
        case Own.OPERATOR_ID:
            return [(Resource.TRANSACTIONAL_ID, names.operator_id)]
    return [(Resource.TOPIC, names.pipeline + on)]


def widened(exact: Iterable[Right], names: Names) -> list[Right]:
    """The same rights with one prefix for all topics that begin with ``<name>.``: fewer lists, which also cover rungs
    that are added later. A pipeline whose name begins so (``<name>.other``) is covered too.
    """
    prefix = names.transactional_id("")
    wide = (
        Right(r.resource, prefix, r.operation, True, r.without)
        if r.resource is Resource.TOPIC and r.name.startswith(prefix)
        else r
        for r in exact
    )
    return list(dict.fromkeys(wide))


@dataclass(frozen=True, slots=True)
class Grantee:
    """Whom to grant rights, and where.

    Attributes:
        principal: Kafka's name of the client, such as ``User:failsoft``.
        bootstrap_servers: the brokers that ``kafka-acls.sh`` connects to.
    """

    principal: str
    bootstrap_servers: str

    @staticmethod
    def of(connection: Mapping[str, Any]) -> Grantee:
        """The grantee of a client's connection settings. The broker derives a principal from a certificate or a token;
        then the name is a placeholder.
        """
        user = connection.get("sasl_plain_username")
        if user is None:
            plain = connection.get("security_protocol", "PLAINTEXT") == "PLAINTEXT"
            user = "ANONYMOUS" if plain else "PRINCIPAL"
        return Grantee(f"User:{user}", str(connection["bootstrap_servers"]))

    def command(self, *granted: Right) -> str:
        """The command that grants rights of one kind, all of them for each name: ready to run in a shell."""
        first = granted[0]
        words = ["kafka-acls.sh", "--bootstrap-server", self.bootstrap_servers, "--add"]
        words += ["--allow-principal", self.principal]
        for operation in dict.fromkeys(right.operation for right in granted):
            words += ["--operation", operation]
        for name in dict.fromkeys(right.name for right in granted):
            words += [f"--{first.resource}", name] if name else [f"--{first.resource}"]
        if first.prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        return shlex.join(words)

    def commands(self, granted: Iterable[Right]) -> list[str]:
        """The fewest commands that grant these rights and no more."""
        by_name: dict[tuple[Resource, str, bool], dict[Operation, Right]] = {}
        for right in granted:
            by_name.setdefault((right.resource, right.name, right.prefixed), {})[right.operation] = right
        alike: dict[tuple[Resource, bool, frozenset[Operation]], list[Right]] = {}
        for (resource, _, prefixed), of_one in by_name.items():
            alike.setdefault((resource, prefixed, frozenset(of_one)), []).extend(of_one.values())
        return [self.command(*together) for together in alike.values()]

    def refusal(self, right: Right) -> str:
        """One line: what is not allowed, and the command that allows it."""
        unseen = (
            " (without it, the topic looks as if it did not exist)"
            if right.resource is Resource.TOPIC and right.operation in (Operation.DESCRIBE,)
            else ""
        )
        return f"not authorised to {right}{unseen}: grant it with: {self.command(right)}"


class NotAuthorised(Exception):
    """The client lacks rights. Exit code 1. The message has a line for each, with the command that grants it.

    Attributes:
        lacking: the rights.
    """

    def __init__(self, lacking: Sequence[Right], to: Grantee) -> None:
        self.lacking = tuple(lacking)
        super().__init__("\n".join(map(to.refusal, lacking)))
