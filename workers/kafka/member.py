"""Who commits offsets: a member of a consumer group, in one of the group's generations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupMember:
    """The group's coordinator refuses offsets of a member that is not in the group's present generation.

    Attributes:
        group: the consumer group.
        generation: the group's generation in which the member got its partitions; -1 outside a group.
        member_id: the id that the coordinator gave the member; "" outside a group.
        instance_id: the static member id, or None for a dynamic member.
    """

    group: str
    generation: int
    member_id: str
    instance_id: str | None
