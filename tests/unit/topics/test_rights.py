"""The table of rights, and the commands that grant them."""

from __future__ import annotations

import shlex

import pytest

from failsoft.topics.layout import Role, layout
from failsoft.topics.names import Names
from failsoft.topics.rights import (
    NEEDS,
    Grantee,
    NotAuthorised,
    Operation,
    Resource,
    Right,
    Use,
    Without,
    rights,
    widened,
)

NAMES = Names("loans")
TOPICS = layout(NAMES, ["applications"], [("5s", 5.0)], 4, 1_000_000, schemas=True)
TO = Grantee("User:fsw", "kafka:9092")


def test_a_worker_needs_no_right_to_create() -> None:
    """After ``topics apply`` only known topics are read and written: no Create, and nothing on the cluster."""
    needed = rights(Use.WORKER, NAMES, TOPICS)
    assert {right.operation for right in needed} == {Operation.READ, Operation.WRITE, Operation.DESCRIBE_CONFIGS}
    assert {right.resource for right in needed} == {Resource.TOPIC, Resource.GROUP, Resource.TRANSACTIONAL_ID}


def test_a_worker_has_rights_on_the_topics_of_each_role() -> None:
    """A new kind of topic cannot be forgotten."""
    assert set(Role) <= {need.on for need in NEEDS[Use.WORKER]}


def test_at_least_once_needs_no_transactional_id() -> None:
    """A producer without transactions has none."""
    needed = rights(Use.WORKER, NAMES, TOPICS, exactly_once=False)
    assert Resource.TRANSACTIONAL_ID not in {right.resource for right in needed}


def test_who_applies_writes_a_schema_only_for_answers_in_avro() -> None:
    """With a registry for events alone, the right is not needed."""
    more = set(rights(Use.APPLY, NAMES, TOPICS, avro_answers=True)) - set(rights(Use.APPLY, NAMES, TOPICS))
    assert {(right.name, right.operation) for right in more} == {
        ("loans.schemas", Operation.READ),
        ("loans.schemas", Operation.WRITE),
    }


@pytest.mark.parametrize("use", [Use.DEAD, Use.REPLAY])
def test_dead_letters_of_json_are_read_without_schemas(use: Use) -> None:
    """A pipeline of JSON may have a registry too, for CloudEvents or for its answers."""
    more = set(rights(use, NAMES, TOPICS, json_events=False)) - set(rights(use, NAMES, TOPICS))
    assert {(right.name, right.operation) for right in more} == {("loans.schemas", Operation.READ)}


def test_the_control_plane_is_not_needed_to_score() -> None:
    """Its topics and its group may be missing; the events, the answers and the workers' group may not."""
    local = {right.name for right in rights(Use.WORKER, NAMES, TOPICS) if right.without is Without.LOCAL}
    tables = {"loans-breakers-changelog", "loans-rollouts-changelog"}
    assert local == {"loans.outcomes", "loans.control", "loans.alerts", "loans.control-plane", *tables}


@pytest.mark.parametrize("use", Use)
def test_no_right_is_named_twice(use: Use) -> None:
    """Each right of a use appears once."""
    needed = [str(right) for right in rights(use, NAMES, TOPICS)]
    assert needed and len(needed) == len(set(needed))


@pytest.mark.parametrize("use", Use)
def test_the_commands_grant_these_rights_and_no_more(use: Use) -> None:
    """Parsed as ``kafka-acls.sh`` parses them: every operation for every resource of the command."""
    needed = rights(use, NAMES, TOPICS)
    granted = {each for command in TO.commands(needed) for each in _granted(command)}
    assert granted == {(r.resource, r.name, r.operation, r.prefixed) for r in needed}


def test_one_prefix_covers_the_pipelines_own_topics() -> None:
    """Topics that begin with ``<name>.`` need one list; the tables of Faust and the inputs have other names."""
    wide = widened(rights(Use.WORKER, NAMES, TOPICS), NAMES)
    topics = {(right.name, right.prefixed) for right in wide if right.resource is Resource.TOPIC}
    tables = {("loans-breakers-changelog", False), ("loans-rollouts-changelog", False)}
    assert topics == {("loans.", True), ("applications", False), *tables}


@pytest.mark.parametrize(
    ("connection", "principal"),
    [
        ({"security_protocol": "PLAINTEXT"}, "User:ANONYMOUS"),
        ({"security_protocol": "SASL_SSL", "sasl_plain_username": "fsw"}, "User:fsw"),
        ({"security_protocol": "SSL"}, "User:PRINCIPAL"),
    ],
)
def test_the_principal_is_that_of_the_connection(connection: dict[str, str], principal: str) -> None:
    """A certificate's principal is the broker's to derive, so its name is a placeholder."""
    assert Grantee.of({"bootstrap_servers": "kafka:9092", **connection}) == Grantee(principal, "kafka:9092")


def test_a_missing_right_is_named_with_its_command() -> None:
    """One line a right. A topic without Describe is told apart from a missing one."""
    lacking = [
        Right(Resource.GROUP, "loans", Operation.READ),
        Right(Resource.TOPIC, "loans.scored", Operation.DESCRIBE),
    ]
    first, second = str(NotAuthorised(lacking, TO)).splitlines()
    assert first == (
        "not authorised to Read group loans: grant it with: kafka-acls.sh --bootstrap-server kafka:9092 --add "
        "--allow-principal User:fsw --operation Read --group loans"
    )
    assert "as if it did not exist" in second and second.endswith("--operation Describe --topic loans.scored")


def test_a_principal_is_quoted_for_the_shell() -> None:
    """A distinguished name has spaces; what the shell reads is the name."""
    command = Grantee("User:CN=a b,O='x'", "kafka:9092").command(Right(Resource.GROUP, "g", Operation.READ))
    assert "User:CN=a b,O='x'" in shlex.split(command)


def _granted(command: str) -> set[tuple[str, str, str, bool]]:
    words = iter(shlex.split(command))
    assert next(words) == "kafka-acls.sh"
    operations, names, prefixed = [], [], False
    for word in words:
        if word == "--operation":
            operations.append(next(words))
        elif word in {f"--{kind}" for kind in Resource}:
            names.append((word[2:], next(words)))
        elif word == "--resource-pattern-type":
            prefixed = next(words) == "prefixed"
        elif word != "--add":
            next(words)
    return {(kind, name, operation, prefixed) for kind, name in names for operation in operations}
