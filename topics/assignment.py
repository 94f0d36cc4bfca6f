"""Pure: which member of the consumer group reads which partitions. A lane is partition i of every topic."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Assignment = dict[str, dict[str, list[int]]]
"""The partitions by topic, by member."""


def assign(subscriptions: Mapping[str, Collection[str]], counts: Mapping[str, int]) -> Assignment:
    """Gives each partition of each topic to one member that reads the topic, and a lane to as few members as possible.

    With one subscription and one count it is Kafka's range assignment: contiguous ranges of lanes, in the order of the
    members. While topics differ in size, the lanes that all topics have are spread first, so that no member has only
    lanes which cannot run yet. With different subscriptions, as in a rolling restart that adds or drops a topic, the
    lane's own member keeps what it reads; what it does not read goes to a member that reads most of that.

    Args:
        subscriptions: the topics that each member reads.
        counts: the number of partitions of each topic. A topic without one does not exist now. It counts as wide as the
            widest one, so that its members notice that it is gone.
    """
    members = sorted(subscriptions)
    topics = sorted({topic for read in subscriptions.values() for topic in read})
    known = [counts[topic] for topic in topics if counts.get(topic)]
    widest = max(known, default=0)
    width = {topic: counts.get(topic) or widest for topic in topics}
    owners = [*_range(members, min(known, default=0)), *_range(members, widest - min(known, default=0))]
    found: Assignment = {member: {} for member in members}
    for lane, owner in enumerate(owners):
        left = {topic for topic in topics if lane < width[topic]}
        reader = owner
        while left:
            if not left & set(subscriptions[reader]):
                reader = _best(members, subscriptions, left, lane)
            for topic in sorted(left & set(subscriptions[reader])):
                found[reader].setdefault(topic, []).append(lane)
            left -= set(subscriptions[reader])
    return found


def _range(members: Sequence[str], lanes: int) -> list[str]:
    """The owner of each lane: as many lanes for each member, and one more for the first ones."""
    each, more = divmod(lanes, len(members)) if members else (0, 0)
    return [member for i, member in enumerate(members) for _ in range(each + (i < more))]


def _best(members: Sequence[str], subscriptions: Mapping[str, Collection[str]], left: set[str], lane: int) -> str:
    """A member that reads most of ``left``; the lanes take turns among several."""
    most = max(len(left & set(subscriptions[member])) for member in members)
    best = [member for member in members if len(left & set(subscriptions[member])) == most]
    return best[lane % len(best)]
