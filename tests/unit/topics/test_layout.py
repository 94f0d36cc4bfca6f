"""The table of topics, and what of existing ones is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from failsoft.topics.layout import (
    DAY_MS,
    DEAD_KEPT_MS,
    HEADROOM,
    Existing,
    Role,
    Topic,
    input_max_bytes,
    input_partitions,
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

REQUIRED = layout(NAMES, INPUTS, DELAYS, P, LARGEST)
WHOLE = {
    t.name: Existing(t.name, t.partitions, {"max.message.bytes": str(LARGEST)} | dict(t.configs)) for t in REQUIRED
}


def changed(name: str, partitions: int | None = None, **configs: str) -> Mapping[str, Existing]:
    """A whole topology but for one topic; in ``configs``, ``retention_ms`` is retention.ms."""
    was = WHOLE[name]
    settings = dict(was.configs) | {key.replace("_", "."): value for key, value in configs.items()}
    return WHOLE | {name: Existing(name, was.partitions if partitions is None else partitions, settings)}


def of_role(role: Role) -> list[Topic]:
    return [t for t in REQUIRED if t.role is role]


def test_the_table_is_the_contracts() -> None:
    """Every topic of the contract, with its partition count."""
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
    ]
    assert all(t.configs["cleanup.policy"] == "compact" for t in of_role(Role.CHANGELOG))


def test_what_we_create_we_accept() -> None:
    """A topology fresh from the table has no problem and nothing missing."""
    assert problems(REQUIRED, WHOLE) == []
    assert missing(REQUIRED, WHOLE) == []


def test_nothing_there_is_nothing_wrong() -> None:
    """Missing topics are created, not refused."""
    assert problems(REQUIRED, {}) == []
    assert missing(REQUIRED, {}) == REQUIRED


def test_a_rung_outlasts_its_delay_and_a_long_outage() -> None:
    """The ladder waits while a breaker is open, so a rung keeps two weeks more than its delay."""
    kept = [int(t.configs["retention.ms"]) for t in of_role(Role.RETRY)]
    assert kept == [14 * DAY_MS + 5_000, 14 * DAY_MS + 3_600_000]


@pytest.mark.parametrize("name", ["loans.scored", "loans.retry.5s", "loans.dead", "loans.replay"])
def test_a_topic_of_another_count_is_refused(name: str) -> None:
    """Index i of every topic belongs to one lane: counts must be equal."""
    [said] = problems(REQUIRED, changed(name, partitions=P + 1))
    assert said == f"{name}: has 5 partitions; it must have 4, like the inputs"


@pytest.mark.parametrize("name", [t.name for t in REQUIRED if t.partitions == 1])
def test_a_single_topic_with_more_partitions_is_refused(name: str) -> None:
    """What has one reader has one partition."""
    [said] = problems(REQUIRED, changed(name, partitions=2))
    assert said.startswith(f"{name}: has 2 partitions; it must have 1")


def test_unequal_inputs_are_refused() -> None:
    """All inputs have one count; the first that exists gives it."""
    existing = changed("loans.more", partitions=6)
    assert input_partitions(INPUTS, existing) == P
    [said] = problems(REQUIRED, existing)
    assert said.startswith("loans.more: has 6 partitions, another input has 4")


def test_the_count_comes_from_an_input_that_exists() -> None:
    """None exists: the count is the pipeline file's."""
    assert input_partitions(INPUTS, {}) is None
    assert input_partitions(INPUTS, {"loans.more": Existing("loans.more", 7, {})}) == 7


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
@pytest.mark.parametrize("name", ["loans.scored", "loans.retry.1h", "loans.dead", "loans.replay"])
def test_compaction_of_records_is_refused(name: str, policy: str) -> None:
    """A compacted rung loses a retry when its key comes again."""
    [said] = problems(REQUIRED, changed(name, cleanup_policy=policy))
    assert said.startswith(f"{name}: cleanup.policy is {policy!r}; it must be 'delete'")


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete"])
def test_the_users_input_may_be_compacted(policy: str) -> None:
    """How the user's topics are cleaned is the user's affair."""
    assert problems(REQUIRED, changed("loans.events", cleanup_policy=policy, retention_ms="1000")) == []


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_changelog_that_forgets_is_refused(policy: str) -> None:
    """A breaker's or a rollout's row must last until it is replaced."""
    [said] = problems(REQUIRED, changed("loans-breakers-changelog", cleanup_policy=policy))
    assert said.startswith("loans-breakers-changelog: cleanup.policy") and "'compact'" in said


@pytest.mark.parametrize(
    ("name", "least"),
    [("loans.retry.5s", DAY_MS + 5_000), ("loans.retry.1h", DAY_MS + 3_600_000), ("loans.dead", DAY_MS)],
)
def test_retention_has_a_floor(name: str, least: int) -> None:
    """At the floor it is taken, a millisecond below it is refused, with the number that would do."""
    assert problems(REQUIRED, changed(name, retention_ms=str(least))) == []
    [said] = problems(REQUIRED, changed(name, retention_ms=str(least - 1)))
    assert said.startswith(f"{name}: retention.ms is {least - 1}; it must be at least {least}")


@pytest.mark.parametrize("name", ["loans.retry.5s", "loans.replay"])
def test_retention_for_ever_is_taken(name: str) -> None:
    """-1 is for ever, not a short time."""
    assert problems(REQUIRED, changed(name, retention_ms="-1")) == []


@pytest.mark.parametrize("kept", [str(DEAD_KEPT_MS + 1), "-1"])
def test_replay_outlasts_dead(kept: str) -> None:
    """What was replayed is read back from replay: forgetting it would replay a letter twice."""
    [said] = problems(REQUIRED, changed("loans.dead", retention_ms=kept))
    assert said.startswith("loans.replay: retention.ms is shorter than that of loans.dead")


@pytest.mark.parametrize(
    ("dead", "wanted"),
    [(str(90 * DAY_MS), 90 * DAY_MS), ("-1", -1), (str(2 * DAY_MS), DEAD_KEPT_MS), (None, DEAD_KEPT_MS)],
)
def test_a_replay_topic_to_be_created_follows_the_dead_one_that_exists(dead: str | None, wanted: int) -> None:
    """Creating it shorter would be refused in the next breath."""
    existing = {} if dead is None else {NAMES.dead: changed(NAMES.dead, retention_ms=dead)[NAMES.dead]}
    kept = replay_kept_ms(NAMES, existing)
    assert kept == wanted
    required = layout(NAMES, INPUTS, DELAYS, P, LARGEST, kept)
    created = {t.name: Existing(t.name, t.partitions, t.configs) for t in missing(required, existing)}
    assert problems(required, created | existing) == []


@pytest.mark.parametrize("name", ["loans.retry.5s", "loans.dead", "loans.replay"])
def test_retention_by_size_is_refused(name: str) -> None:
    """Size knows nothing of what was read."""
    [said] = problems(REQUIRED, changed(name, retention_bytes="1000000"))
    assert said.startswith(f"{name}: retention.bytes is set; it must be -1")


@pytest.mark.parametrize("name", ["loans.scored", "loans.retry.5s", "loans.dead", "loans.replay"])
def test_the_largest_event_and_our_headers_fit(name: str) -> None:
    """A write that cannot succeed would crash the worker for ever."""
    assert problems(REQUIRED, changed(name, max_message_bytes=str(LARGEST + HEADROOM))) == []
    [said] = problems(REQUIRED, changed(name, max_message_bytes=str(LARGEST + HEADROOM - 1)))
    assert said.startswith(f"{name}: max.message.bytes is") and str(LARGEST + HEADROOM) in said


def test_the_largest_input_decides() -> None:
    """Inputs that exist say how large; for one that does not, the broker's default does."""
    existing = {
        "loans.events": Existing("loans.events", P, {"max.message.bytes": "2000000"}),
        "loans.more": Existing("loans.more", P, {"max.message.bytes": "5000000"}),
    }
    assert input_max_bytes(INPUTS, existing, LARGEST) == 5_000_000
    assert input_max_bytes(INPUTS, {}, LARGEST) == LARGEST


def test_every_problem_is_said_at_once() -> None:
    """An operator repairs a topology in one go."""
    broken = dict(changed("loans.dead", partitions=3, cleanup_policy="compact", retention_bytes="1", retention_ms="1"))
    broken["loans.control"] = Existing("loans.control", 2, WHOLE["loans.control"].configs)
    assert len(problems(REQUIRED, broken)) == 5
