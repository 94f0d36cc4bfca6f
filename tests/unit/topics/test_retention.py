"""Retentions that are short for a long stop, or for the ladder."""

from __future__ import annotations

from failsoft.topics.layout import DAY_MS, Existing, layout
from failsoft.topics.names import Names
from failsoft.topics.retention import STOP_MS, warnings

TOPICS = layout(Names("loans"), ["in"], [("5s", 5.0), ("1h", 3600.0)], 4, 1_000_000)


def _existing(**retention: str) -> dict[str, Existing]:
    found = {}
    for topic in TOPICS:
        name = topic.name.removeprefix("loans.")
        configs = dict(topic.configs) | ({"retention.ms": retention[name]} if name in retention else {})
        found[topic.name] = Existing(topic.name, topic.partitions, configs)
    return found


def test_the_pipelines_own_retentions_need_no_warning() -> None:
    """Nor does an input that is kept for ever, or a cluster that does not say."""
    assert warnings(TOPICS, _existing(), STOP_MS) == {} == warnings(TOPICS, {}, None)


def test_a_retention_shorter_than_a_stop_says_what_is_lost() -> None:
    """By topic, in milliseconds and for people."""
    found = warnings(TOPICS, _existing(**{"in": str(DAY_MS), "dead": str(2 * DAY_MS)}), None)
    assert set(found) == {"in", "loans.dead"}
    assert found["in"] == [
        f"retention.ms is {DAY_MS} (24 hours): after a longer stop, events that were not read by then are lost"
    ]
    assert "dead letters" in found["loans.dead"][0]


def test_a_retention_shorter_than_the_ladder_is_told() -> None:
    """An event's first answer, or the event itself, may be gone before the last one."""
    found = warnings(TOPICS, _existing(scored="3600000"), None)
    assert found == {
        "loans.scored": [
            "retention.ms is 3600000 (60 minutes), less than the ladder's 60.1 minutes: an event may be gone before "
            "its final answer"
        ]
    }


def test_a_short_offsets_retention_is_told_of_the_inputs() -> None:
    """Workers that are away for longer find no offsets."""
    found = warnings(TOPICS, _existing(), 60_000)
    assert set(found) == {"in"} and "offsets.retention.minutes is 1:" in found["in"][0]
    assert "failsoft offsets repair --all" in found["in"][0]
