"""The required topics, and the checks of existing ones."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from failsoft.topics.layout import (
    DAY_MS,
    DEAD_KEPT_MS,
    HEADROOM,
    Existing,
    Role,
    SettingChange,
    Topic,
    after_changes,
    changes,
    input_max_bytes,
    layout,
    missing,
    problems,
    replay_kept_ms,
)
from failsoft.topics.names import Names

NAMES = Names("loans")
INPUTS = ["loans.events", "loans.more"]
DELAYS = [("5s", 5.0), ("1h", 3600.0)]
LARGEST = 1_048_588
P = 4

REQUIRED = layout(NAMES, INPUTS, DELAYS, P, LARGEST, schemas=True)
WHOLE = {
    t.name: Existing(t.name, t.partitions, {"max.message.bytes": str(LARGEST)} | dict(t.configs)) for t in REQUIRED
}


def changed(name: str, partitions: int | None = None, **configs: str) -> Mapping[str, Existing]:
    """A valid topology with one topic changed; in ``configs``, ``retention_ms`` stands for retention.ms."""
    was = WHOLE[name]
    settings = dict(was.configs) | {key.replace("_", "."): value for key, value in configs.items()}
    return WHOLE | {name: Existing(name, was.partitions if partitions is None else partitions, settings)}


def of_role(role: Role) -> list[Topic]:
    return [t for t in REQUIRED if t.role is role]


def test_the_topics_are_those_of_the_contract() -> None:
    """The layout has every topic of the contract, with its number of partitions."""
    assert [(t.name, t.role, t.partitions) for t in REQUIRED] == [
        ("loans.events", Role.INPUT, P),
        ("loans.more", Role.INPUT, P),
        ("loans.scored", Role.SCORED, P),
        ("loans.retry.5s", Role.RETRY, P),
        ("loans.retry.1h", Role.RETRY, P),
        ("loans.dead", Role.DEAD, P),
        ("loans.replay", Role.REPLAY, P),
        ("loans.outcomes", Role.OUTCOMES, 1),
        ("loans.control", Role.CONTROL, 1),
        ("loans.alerts", Role.ALERTS, 1),
        ("loans-breakers-changelog", Role.CHANGELOG, 1),
        ("loans-rollouts-changelog", Role.CHANGELOG, 1),
        ("loans.schemas", Role.SCHEMAS, 1),
    ]
    assert all(t.configs["cleanup.policy"] == "compact" for r in (Role.CHANGELOG, Role.SCHEMAS) for t in of_role(r))


def test_schemas_have_a_topic_only_with_a_registry() -> None:
    """Without a registry, the same topics but for that of schemas."""
    assert layout(NAMES, INPUTS, DELAYS, P, LARGEST) == [t for t in REQUIRED if t.role is not Role.SCHEMAS]


def test_created_topics_are_accepted() -> None:
    """A topology created from the layout has no problems and no missing topics."""
    assert problems(REQUIRED, WHOLE) == []
    assert missing(REQUIRED, WHOLE) == []


def test_missing_topics_are_not_problems() -> None:
    """Missing topics are reported as missing, not as problems."""
    assert problems(REQUIRED, {}) == []
    assert missing(REQUIRED, {}) == REQUIRED


def test_a_rung_outlasts_its_delay_and_a_long_outage() -> None:
    """A rung's retention is two weeks longer than its delay, because the ladder waits while a breaker is open."""
    kept = [int(t.configs["retention.ms"]) for t in of_role(Role.RETRY)]
    assert kept == [14 * DAY_MS + 5_000, 14 * DAY_MS + 3_600_000]


@pytest.mark.parametrize("name", [t.name for t in REQUIRED if t.partitions == 1])
def test_a_single_topic_with_more_partitions_is_refused(name: str) -> None:
    """A topic with one reader must have one partition."""
    [line] = problems(REQUIRED, changed(name, partitions=2))
    assert line.startswith(f"{name}: has 2 partitions; it must have 1")


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
@pytest.mark.parametrize("name", ["loans.scored", "loans.retry.1h", "loans.dead", "loans.replay"])
def test_compaction_of_records_is_refused(name: str, policy: str) -> None:
    """A compacted rung is refused, because it loses a retry when the same key is written again."""
    [line] = problems(REQUIRED, changed(name, cleanup_policy=policy))
    assert line.startswith(f"{name}: cleanup.policy is {policy!r}; it must be 'delete'")


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete"])
def test_the_users_input_may_be_compacted(policy: str) -> None:
    """The cleanup policy and retention of input topics are not checked: they are the user's choice."""
    assert problems(REQUIRED, changed("loans.events", cleanup_policy=policy, retention_ms="1000")) == []


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
@pytest.mark.parametrize("name", ["loans-breakers-changelog", "loans.schemas"])
def test_a_table_without_pure_compaction_is_refused(policy: str, name: str) -> None:
    """A table must only be compacted: a breaker, rollout or schema must stay until it is replaced."""
    [line] = problems(REQUIRED, changed(name, cleanup_policy=policy))
    assert line.startswith(f"{name}: cleanup.policy") and "'compact'" in line


@pytest.mark.parametrize(
    ("name", "least"),
    [("loans.retry.5s", DAY_MS + 5_000), ("loans.retry.1h", DAY_MS + 3_600_000), ("loans.dead", DAY_MS)],
)
def test_retention_has_a_minimum(name: str, least: int) -> None:
    """The minimum retention is accepted; a millisecond less is refused with the minimum in the message."""
    assert problems(REQUIRED, changed(name, retention_ms=str(least))) == []
    [line] = problems(REQUIRED, changed(name, retention_ms=str(least - 1)))
    assert line.startswith(f"{name}: retention.ms is {least - 1}; it must be at least {least}")


@pytest.mark.parametrize("name", ["loans.retry.5s", "loans.replay"])
def test_retention_for_ever_is_accepted(name: str) -> None:
    """A retention of -1 means for ever and is accepted."""
    assert problems(REQUIRED, changed(name, retention_ms="-1")) == []


@pytest.mark.parametrize("kept", [str(DEAD_KEPT_MS + 1), "-1"])
def test_replay_outlasts_dead(kept: str) -> None:
    """The replay topic must keep records at least as long as the dead topic, or a dead letter may be replayed twice."""
    [line] = problems(REQUIRED, changed("loans.dead", retention_ms=kept))
    assert line.startswith("loans.replay: retention.ms is shorter than that of loans.dead")


@pytest.mark.parametrize(
    ("dead", "wanted"),
    [(str(90 * DAY_MS), 90 * DAY_MS), ("-1", -1), (str(2 * DAY_MS), DEAD_KEPT_MS), (None, DEAD_KEPT_MS)],
)
def test_a_new_replay_topic_keeps_records_as_long_as_the_dead_topic(dead: str | None, wanted: int) -> None:
    """A replay topic is created with at least the dead topic's retention, because a shorter one is refused."""
    existing = {} if dead is None else {NAMES.dead: changed(NAMES.dead, retention_ms=dead)[NAMES.dead]}
    kept = replay_kept_ms(NAMES, existing)
    assert kept == wanted
    required = layout(NAMES, INPUTS, DELAYS, P, LARGEST, kept, schemas=True)
    created = {t.name: Existing(t.name, t.partitions, t.configs) for t in missing(required, existing)}
    assert problems(required, created | existing) == []


@pytest.mark.parametrize("name", ["loans.retry.5s", "loans.dead", "loans.replay"])
def test_retention_by_size_is_refused(name: str) -> None:
    """Retention by size is refused, because it deletes records that were not read yet."""
    [line] = problems(REQUIRED, changed(name, retention_bytes="1000000"))
    assert line.startswith(f"{name}: retention.bytes is set; it must be -1")


@pytest.mark.parametrize("name", ["loans.scored", "loans.retry.5s", "loans.dead", "loans.replay"])
def test_the_largest_event_with_our_headers_must_fit(name: str) -> None:
    """A topic must accept the inputs' largest record plus our headers: else a write crashes its worker for ever."""
    assert problems(REQUIRED, changed(name, max_message_bytes=str(LARGEST + HEADROOM))) == []
    [line] = problems(REQUIRED, changed(name, max_message_bytes=str(LARGEST + HEADROOM - 1)))
    assert line.startswith(f"{name}: max.message.bytes is") and str(LARGEST + HEADROOM) in line


@pytest.mark.parametrize("name", ["loans.scored", "loans.retry.5s", "loans.dead", "loans.replay"])
def test_records_of_events_have_the_time_of_writing(name: str) -> None:
    """With the broker's time, a record's own time would be lost. The command that mends it is named."""
    [line] = problems(REQUIRED, changed(name, message_timestamp_type="LogAppendTime"))
    assert line.startswith(f"{name}: message.timestamp.type is 'LogAppendTime'")
    assert f"--entity-name {name} --add-config message.timestamp.type=CreateTime" in line


def test_the_fleets_topics_may_have_either_time() -> None:
    """Old ones have the time of writing: a worker starts, and ``topics apply`` changes them."""
    old = changed("loans.outcomes", message_timestamp_type="CreateTime")
    assert problems(REQUIRED, old) == []
    [change] = changes(REQUIRED, old)
    assert change == SettingChange("loans.outcomes", "message.timestamp.type", "CreateTime", "LogAppendTime", False)
    assert changes(REQUIRED, after_changes(old, [change])) == []


def test_a_record_limit_that_an_input_has_outgrown_is_raised() -> None:
    """The problem names the command, and the command's change solves it. Nothing else is changed."""
    assert changes(REQUIRED, WHOLE) == []
    small = dict(changed("loans.scored", max_message_bytes="1000000", retention_bytes="1"))
    [size] = list(problems(REQUIRED, changed("loans.scored", max_message_bytes="1000000")))
    assert size.endswith("raise it with: failsoft topics apply")
    planned = changes(REQUIRED, small)
    wanted = str(LARGEST + HEADROOM)
    assert planned == [SettingChange("loans.scored", "max.message.bytes", "1000000", wanted, needed=True)]
    after = after_changes(small, planned)
    assert after["loans.scored"].configs == {**small["loans.scored"].configs, "max.message.bytes": wanted}


def test_the_users_inputs_are_never_changed() -> None:
    """An input with a small limit, or with the broker's time, is the user's business."""
    assert (
        changes(REQUIRED, changed("loans.events", max_message_bytes="1", message_timestamp_type="LogAppendTime")) == []
    )


def test_the_largest_input_decides() -> None:
    """The largest record limit of the existing inputs counts; without inputs, the broker's default."""
    existing = {
        "loans.events": Existing("loans.events", P, {"max.message.bytes": "2000000"}),
        "loans.more": Existing("loans.more", P, {"max.message.bytes": "5000000"}),
    }
    assert input_max_bytes(INPUTS, existing, LARGEST) == 5_000_000
    assert input_max_bytes(INPUTS, {}, LARGEST) == LARGEST


def test_every_problem_is_reported_at_once() -> None:
    """All problems are reported together, so that an operator can repair them in one go."""
    broken = dict(changed("loans.dead", cleanup_policy="compact", retention_bytes="1", retention_ms="1"))
    broken["loans.control"] = Existing("loans.control", 2, WHOLE["loans.control"].configs)
    assert len(problems(REQUIRED, broken)) == 4
