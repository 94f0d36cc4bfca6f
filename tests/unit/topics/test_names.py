"""Topic names: derived, inverted, and within Kafka's limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.topics.names import LONGEST, LONGEST_TOPIC, Names, check_name

DELAYS = ["5s", "1m", "1h", "1.5h", "200ms", "7d"]
LEGAL_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
PIPELINES = st.from_regex(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}", fullmatch=True)


def fixed(names: Names) -> list[str]:
    """Every topic but the rungs."""
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


def test_the_names_are_the_contracts() -> None:
    """These names are a promise to users: tools and other programs rely on them."""
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
def test_a_good_pipeline_name_gives_topics_that_kafka_takes(pipeline: str) -> None:
    """Every derived name is legal, distinct, and known as the pipeline's own."""
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
    "topic", ["loans.scored", "loans.retry.", "loans.retry", "other.retry.5s", "loans2.retry.5s", ""]
)
def test_other_topics_are_no_rungs(topic: str) -> None:
    """Only this pipeline's rungs have a delay."""
    assert Names("loans").delay_of(topic) is None


@pytest.mark.parametrize("topic", ["loans", "loans.events", "loans.scored.copy", "loansXscored", "loans-changelog", ""])
def test_what_only_looks_like_ours_is_the_users(topic: str) -> None:
    """A user may name an input like the pipeline; it is theirs."""
    assert not Names("loans").owns(topic)


@pytest.mark.parametrize(
    "name", ["", ".loans", "-loans", "_loans", "car loans", "loans/1", "prêts", "loans\n", "a" * (LONGEST + 1)]
)
def test_a_bad_name_is_refused_with_what_is_right(name: str) -> None:
    """The message names the culprit and the rule."""
    with pytest.raises(ValueError, match=f"(?s){re.escape(repr(name))}.*letters, digits.*at most {LONGEST}"):
        check_name(name)


def test_each_lane_and_the_replayer_have_ids_of_their_own() -> None:
    """A transactional id is a fence: two owners of one would evict each other."""
    names = Names("loans")
    ids = [*(names.transactional_id(i) for i in range(12)), names.replayer_id]
    assert ids[:2] == ["loans.0", "loans.1"]
    assert len(set(ids)) == len(ids)
