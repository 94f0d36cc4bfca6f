"""Which member reads which partitions: each partition once, lanes whole, and as Kafka's range where nothing differs."""

from __future__ import annotations

from types import SimpleNamespace

from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from failsoft.topics.assignment import Assignment, assign

TOPICS = ("in", "more", "replay", "retry.1", "retry.2")
MEMBERS = st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=6, unique=True)
COUNTS = st.fixed_dictionaries({topic: st.integers(0, 9) for topic in TOPICS})


def _owners(found: Assignment, topic: str, lane: int) -> list[str]:
    return [member for member, read in found.items() if lane in read.get(topic, [])]


@given(members=MEMBERS, lanes=st.integers(0, 20))
def test_equal_topics_are_assigned_as_kafkas_range_does(members: list[str], lanes: int) -> None:
    """So workers of this and of an earlier release may be in one group, whoever leads."""
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range(lanes)))
    theirs = RangePartitionAssignor.assign(
        cluster,  # type: ignore[arg-type]
        {member: ConsumerProtocolMemberMetadata(0, list(TOPICS), b"") for member in members},
    )
    ours = assign(dict.fromkeys(members, TOPICS), dict.fromkeys(TOPICS, lanes))
    for member, given_ in theirs.items():
        assert {t: ps for t, ps in given_.assignment if ps} == ours[member]


@given(data=st.data(), members=MEMBERS, counts=COUNTS)
def test_each_partition_goes_to_one_member_that_reads_it(
    data: st.DataObject, members: list[str], counts: dict[str, int]
) -> None:
    """Whatever the members read, and however many partitions each topic has."""
    subscriptions = {m: data.draw(st.sets(st.sampled_from(TOPICS))) for m in members}
    found = assign(subscriptions, counts)
    for topic in TOPICS:
        readers = [m for m in members if topic in subscriptions[m]]
        for lane in range(counts[topic] if readers else 0):
            (owner,) = _owners(found, topic, lane)
            assert owner in readers
        assert all(topic in subscriptions[m] for m, read in found.items() if topic in read)
    assert all(ps == sorted(set(ps)) for read in found.values() for ps in read.values())


@given(members=MEMBERS, counts=COUNTS)
def test_a_lane_is_whole_and_lanes_are_balanced(members: list[str], counts: dict[str, int]) -> None:
    """With one subscription, also while topics grow: the lanes that all topics have differ by one at most a member."""
    found = assign(dict.fromkeys(members, TOPICS), counts)
    widest = max(counts.values())
    for lane in range(widest):
        assert len({_owners(found, topic, lane)[0] for topic in TOPICS if lane < counts[topic]}) == 1
    full = min((n for n in counts.values() if n), default=0)
    share = [sum(lane < full for lane in set().union(*read.values())) for read in found.values()]
    assert max(share) - min(share) <= 1


@given(members=st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6, unique=True), new=st.integers(1, 5))
def test_what_old_workers_do_not_read_goes_to_new_ones(members: list[str], new: int) -> None:
    """A rolling restart that adds a rung: each lane's own member keeps the rest, and the rung's lanes are spread."""
    new = min(new, len(members))
    subscriptions = {m: TOPICS if i < new else TOPICS[:-1] for i, m in enumerate(members)}
    found = assign(subscriptions, dict.fromkeys(TOPICS, 12))
    before = assign(dict.fromkeys(members, TOPICS[:-1]), dict.fromkeys(TOPICS, 12))
    for member, read in before.items():
        assert {t: ps for t, ps in found[member].items() if t != TOPICS[-1]} == read
    assert {owner for lane in range(12) for owner in _owners(found, TOPICS[-1], lane)} == set(members[:new])


def test_a_topic_that_is_gone_counts_as_wide_as_the_widest() -> None:
    """Its members are assigned it, and notice: a topic that nobody is assigned would be missed by nobody."""
    assert assign({"a": ["in", "replay"], "b": ["in", "replay"]}, {"replay": 2}) == {
        "a": {"in": [0], "replay": [0]},
        "b": {"in": [1], "replay": [1]},
    }
    assert assign({"a": ["in"]}, {}) == {"a": {}}
    assert assign({}, {"in": 3}) == {}
