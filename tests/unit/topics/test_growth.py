"""Topics with different numbers of partitions: what is said of them, and the order in which they grow."""

from __future__ import annotations

from collections.abc import Mapping

from failsoft.topics.growth import Growth, growths, refusals, uneven, widest
from failsoft.topics.layout import Existing, Role, layout, problems
from failsoft.topics.names import Names

REQUIRED = layout(Names("loans"), ["loans.events", "loans.more"], [("5s", 5.0), ("1m", 60.0)], 4, 1_000)
LANES = [
    "loans.scored",
    "loans.dead",
    "loans.retry.1m",
    "loans.retry.5s",
    "loans.replay",
    "loans.events",
    "loans.more",
]


def _cluster(**counts: int) -> Mapping[str, Existing]:
    """All topics; those of lanes with 4 partitions, but for ``counts``, by the end of the name."""
    changed = {f"loans.{name.replace('_', '.')}": n for name, n in counts.items()}
    configs = {t.name: dict(t.configs) | {"max.message.bytes": "99999999"} for t in REQUIRED}
    return {t.name: Existing(t.name, changed.get(t.name, t.partitions), configs[t.name]) for t in REQUIRED}


def test_the_outputs_grow_first_and_the_inputs_last() -> None:
    """A lane is assigned when a topic that is read has its partition, and then it must be able to write."""
    steps = growths(REQUIRED, _cluster(), 6)
    assert [step.topic for step in steps] == LANES
    assert steps[0] == Growth("loans.scored", Role.SCORED, 4, 6)


def test_an_interrupted_growth_goes_on() -> None:
    """What has grown is left as it is, and at the end nothing is left to do."""
    assert [s.topic for s in growths(REQUIRED, _cluster(scored=6, dead=6, retry_1m=6), 6)] == LANES[3:]
    assert not growths(REQUIRED, _cluster(), 4)


def test_no_topic_loses_partitions() -> None:
    """Kafka takes none away, and it is said which topic has how many."""
    assert refusals(REQUIRED, _cluster(more=12), 6) == [
        "loans.more: has 12 partitions and cannot have fewer: --grow takes 12 or more"
    ]
    assert not refusals(REQUIRED, _cluster(more=12), 12)


def test_uneven_topics_are_told_and_no_reason_to_refuse_a_worker() -> None:
    """Each line says which lanes wait and what mends it."""
    existing = _cluster(events=6, more=6, dead=5)
    lines = uneven(REQUIRED, existing)
    assert [line.partition(":")[0] for line in lines] == [
        "loans.scored",
        "loans.retry.5s",
        "loans.retry.1m",
        "loans.dead",
        "loans.replay",
    ]
    assert lines[3] == (
        "loans.dead: has 5 partitions, another topic of the pipeline 6: stopped: lane 5; grow all of them with: "
        "failsoft topics apply --grow 6"
    )
    assert "6: stopped: lanes 4 to 5; grow" in lines[0]
    assert not problems(REQUIRED, existing)
    (line,) = uneven(REQUIRED, _cluster(more=3))
    assert "loans.more: has 3 partitions" in line and "it has no events for lane 3" in line
    assert not uneven(REQUIRED, _cluster()) and not uneven(REQUIRED, {})


def test_the_number_of_lanes_is_that_of_the_widest_topic() -> None:
    """Topics with one partition do not count."""
    assert widest(REQUIRED, _cluster(dead=7)) == 7
    assert widest(REQUIRED, {"loans.alerts": Existing("loans.alerts", 9, {})}) is None
