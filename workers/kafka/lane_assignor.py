"""The assignment of lanes in the group's protocol, with what it was computed from, so that members notice changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from failsoft.topics.assignment import assign

_PREFIX = b"failsoft/1 "


class LaneAssignor:
    """What aiokafka's coordinator needs of an assignor, as an object.

    It has the name of Kafka's range assignor, which earlier releases use: a group's members must share one, and with
    equal topics both give the same.

    Attributes:
        joins: a number in this member's metadata. A known member that joins with other metadata makes the coordinator
            rebalance; without a change it would give the present assignment back.
        counts: the number of partitions of each topic that this member was taken to read when the assignment was
            computed; None if the leader did not say.
    """

    name = RangePartitionAssignor.name

    def __init__(self) -> None:
        self.joins = 0
        self.counts: Mapping[str, int] | None = None

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member tells the leader."""
        return ConsumerProtocolMemberMetadata(0, sorted(topics), _PREFIX + b"%d" % self.joins)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The assignment of all members, by the leader."""
        subscriptions = {member: set(metadata.subscription) for member, metadata in members.items()}
        topics = set().union(*subscriptions.values())
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        assigned = assign(subscriptions, counts)
        return {
            member: ConsumerProtocolMemberAssignment(
                0, sorted(assigned[member].items()), encode({topic: counts[topic] for topic in sorted(read)})
            )
            for member, read in subscriptions.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Note what the leader knew."""
        self.counts = decode(assignment.user_data)

    def is_stale(self, present: Mapping[str, int]) -> bool:
        """Whether the leader took this member to read other topics, or another number of partitions.

        ``present`` has the number of partitions of each topic that the member reads; 0 is not known.
        """
        if self.counts is None:
            return True
        return present.keys() != self.counts.keys() or any(n and n != self.counts[t] for t, n in present.items())


def encode(counts: Mapping[str, int]) -> bytes:
    """The counts as user data of an assignment."""
    return _PREFIX + json.dumps(counts, separators=(",", ":")).encode()


def decode(user_data: bytes | None) -> Mapping[str, int] | None:
    """The counts in an assignment's user data. None if they are not ours: other leaders write none, or their own."""
    if not user_data or not user_data.startswith(_PREFIX):
        return None
    found: Mapping[str, int] = json.loads(user_data[len(_PREFIX) :])
    return found
