"""Topic names: deriving them, recognising them, and Kafka's limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.topics.names import LONGEST, LONGEST_TOPIC, Names, check_name
from failsoft.workers.identity import RESERVED, InvalidId, claim

DELAYS = ["5s", "1m", "1h", "1.5h", "200ms", "7d"]
LEGAL_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
PIPELINES = st.from_regex(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}", fullmatch=True)


def fixed(names: Names) -> list[str]:
    """Every topic except the rungs."""
    return [
        names.scored,
        names.dead,
        names.replay,
        names.outcomes,
        names.control,
        names.alerts,
        names.breakers_changelog,
        names.rollouts_changelog,
    ]


def test_the_names_are_those_of_the_contract() -> None:
    """Topic and group names are those of the contract, because users' tools rely on them."""
    names = Names("car-loans")
    assert fixed(names) == [
        "car-loans.scored",
        "car-loans.dead",
        "car-loans.replay",
        "car-loans.outcomes",
        "car-loans.control",
        "car-loans.alerts",
        "car-loans-breakers-changelog",
        "car-loans-rollouts-changelog",
    ]
    assert names.retry("1m") == "car-loans.retry.1m"
    assert names.group == "car-loans"
    assert names.control_group == "car-loans.control-plane"


@given(PIPELINES)
def test_a_valid_pipeline_name_gives_valid_topic_names(pipeline: str) -> None:
    """Every derived name is legal in Kafka, distinct, and recognised as the pipeline's own."""
    check_name(pipeline)
    names = Names(pipeline)
    topics = [*fixed(names), *map(names.retry, DELAYS)]
    assert all(LEGAL_TOPIC.fullmatch(topic) and len(topic) <= LONGEST_TOPIC for topic in topics)
    assert len(set(topics)) == len(topics)
    assert all(names.owns(topic) for topic in topics)


@given(PIPELINES, st.sampled_from(DELAYS))
def test_a_rung_names_its_delay(pipeline: str, delay: str) -> None:
    """delay_of is the inverse of retry."""
    names = Names(pipeline)
    assert names.delay_of(names.retry(delay)) == delay


@pytest.mark.parametrize(
    "topic",
    [
        "loans.scored",
        "loans.retry.",
        "loans.retry",
        "other.retry.5s",
        "loans2.retry.5s",
        "",
        "loans.retry.b.scored",
        "loans.retry.b.retry.5s",
        "loans.retry.b",
        "loans.retry.5s.scored",
        "loans.retry.0s",
    ],
)
def test_other_topics_are_not_rungs(topic: str) -> None:
    """delay_of gives a delay only for this pipeline's rungs, and not for topics of a pipeline named loans.retry.b."""
    assert Names("loans").delay_of(topic) is None


@pytest.mark.parametrize("topic", ["loans", "loans.events", "loans.scored.copy", "loansXscored", "loans-changelog", ""])
def test_a_similar_topic_name_is_not_owned(topic: str) -> None:
    """A topic whose name only resembles the pipeline's is not one of its own: a user may name an input like that."""
    assert not Names("loans").owns(topic)


@pytest.mark.parametrize(
    "name", ["", ".loans", "-loans", "_loans", "car loans", "loans/1", "prêts", "loans\n", "a" * (LONGEST + 1)]
)
def test_an_invalid_name_is_refused_with_the_rule(name: str) -> None:
    """The error has the invalid name and the rule for valid ones."""
    with pytest.raises(ValueError, match=f"(?s){re.escape(repr(name))}.*letters, digits.*at most {LONGEST}"):
        check_name(name)


def test_each_worker_and_the_replayer_have_their_own_transactional_id() -> None:
    """Two producers with the same id would fence each other, so no worker may have the replayer's."""
    names = Names("loans")
    ids = [*(names.transactional_id(f"host-{i}") for i in range(12)), names.replayer_id, names.operator_id]
    assert ids[:2] == ["loans.host-0", "loans.host-1"] and len(set(ids)) == len(ids)
    assert {*map(names.transactional_id, RESERVED)} == {names.replayer_id, names.operator_id}
    for taken, by in RESERVED.items():
        for worker_id in (taken, f"eu.{taken}"):  # the second one is that of the pipeline loans.eu
            with pytest.raises(InvalidId, match=by):
                claim("loans", worker_id)
