"""A member stays through rebalances and moves of its coordinator, and ends when its group has removed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from failsoft.workers.kafka.group_coordinator import MemberRemoved
from failsoft.workers.kafka.lane_assignor import encode
from failsoft.workers.kafka.lane_coordinator import AGAIN
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.membership import GroupSettings, Membership
from failsoft.workers.kafka.request_errors import Code
from tests.kafka import eventually

WITHIN = 10.0
MEMBER_ID_REQUIRED = 79
JOIN, SYNC, HEARTBEAT = "JoinGroupRequest", "SyncGroupRequest", "HeartbeatRequest"


@dataclass
class FakeGroup:
    """A group and its coordinator, in place of aiokafka's client.

    Attributes:
        codes: the error codes of the next answers, by request; 0 after them.
        sent: each request, and the node that got it.
        node: who coordinates.
        assigned: what each member gets.
        user_data: what the leader says with it.
        partitions: how many the topic has.
        listeners: told of new metadata.
        joins: the metadata of each join.
    """

    codes: dict[str, list[int]] = field(default_factory=dict)
    sent: list[tuple[str, int]] = field(default_factory=list)
    node: int = 1
    generation: int = 0
    assigned: list[tuple[str, list[int]]] = field(default_factory=lambda: [("t", [0])])
    user_data: bytes = encode({"t": 1})
    partitions: int = 1
    listeners: list[Any] = field(default_factory=list)
    joins: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = SimpleNamespace(
            partitions_for_topic=lambda topic: set(range(self.partitions)),
            unauthorized_topics=set(),
            add_listener=self.listeners.append,
        )

    async def bootstrap(self) -> None: ...

    async def close(self) -> None: ...

    def tell(self) -> None:
        """Tell of new metadata, as a client that reads it now and then."""
        for listener in self.listeners:
            listener(self.cluster)

    def set_topics(self, topics: Any) -> None: ...

    def force_metadata_update(self) -> None:
        asyncio.get_running_loop().call_soon(self.tell)

    async def coordinator_lookup(self, kind: int, key: str) -> int:
        return self.node

    async def ready(self, node: int, *, group: Any) -> bool:
        return True

    async def send(self, node: int, request: Any, *, group: Any) -> Any:
        name = type(request).__name__
        self.sent.append((name, node))
        codes = self.codes.get(name)
        code = codes.pop(0) if codes else 0
        if name == JOIN and not code:
            self.generation += 1
            self.joins.append(request.prepare({11: (0, 5)}).group_protocols[0][1])
        return SimpleNamespace(
            error_code=code,
            member_id="m",
            leader_id="another",
            generation_id=self.generation,
            group_protocol="range",
            member_assignment=ConsumerProtocolMemberAssignment(0, self.assigned, self.user_data).encode(),
        )

    def count(self, name: str) -> int:
        return [sent for sent, _ in self.sent].count(name)


class Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes each assignment."""

    def __init__(self) -> None:
        self.assigned: list[set[TopicPartition]] = []

    def on_partitions_revoked(self, revoked: Any) -> None: ...

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.assigned.append(assigned)


@asynccontextmanager
async def joined(group: FakeGroup, instance: str | None = "w0") -> AsyncIterator[tuple[Membership, Assignments]]:
    """A member of ``group`` that has its first assignment."""
    settings = GroupSettings("loans", instance, heartbeat_interval_ms=1)  # type: ignore[arg-type]
    membership, assignments = Membership(group, settings), Assignments()  # type: ignore[arg-type]
    try:
        await asyncio.wait_for(membership.join(["t"], assignments), WITHIN)
        yield membership, assignments
    finally:
        await asyncio.wait_for(membership.stop(), WITHIN)


async def _removal(membership: Membership) -> MemberRemoved:
    """The error with which ``check`` ends the worker."""

    def found() -> MemberRemoved | None:
        try:
            membership.check()
        except MemberRemoved as error:
            return error
        return None

    return await eventually(found, WITHIN, "the removal")  # type: ignore[return-value]


@pytest.mark.parametrize("code", [Code.UNKNOWN_MEMBER_ID, Code.ILLEGAL_GENERATION, Code.FENCED_INSTANCE_ID])
async def test_a_member_that_its_group_does_not_know_ends(code: Code) -> None:
    """It says who may have its place, and does not join again: that would remove the other process in turn."""
    group = FakeGroup()
    async with joined(group) as (membership, _):
        membership.check()
        group.codes[HEARTBEAT] = [code]
        error = await _removal(membership)
        assert str(error) == (
            f"the group loans has removed this member (HeartbeatRequest: {code.name}): another process has the id w0, "
            "or this one was silent for longer than its session of 6 s"
        )
        for _ in range(20):
            await asyncio.sleep(0)
            with pytest.raises(MemberRemoved):
                membership.check()
        assert group.count(JOIN) == 1


@pytest.mark.parametrize(
    ("request_", "code"),
    [(JOIN, Code.UNKNOWN_MEMBER_ID), (JOIN, Code.FENCED_INSTANCE_ID), (SYNC, Code.FENCED_INSTANCE_ID)],
)
async def test_a_member_that_is_removed_in_a_rebalance_ends(request_: str, code: Code) -> None:
    """Its join, or the next request, is refused."""
    group = FakeGroup()
    async with joined(group) as (membership, _):
        group.codes |= {HEARTBEAT: [Code.REBALANCE_IN_PROGRESS], request_: [code]}
        assert f"({request_}: {code.name})" in str(await _removal(membership))
        assert group.count(JOIN) == 2


async def test_a_member_that_is_replaced_before_its_first_assignment_ends() -> None:
    """Two processes with one id start at once: the later one stays."""
    with pytest.raises(MemberRemoved, match="another process has the id w0"):
        async with joined(FakeGroup({SYNC: [Code.FENCED_INSTANCE_ID]})):
            pytest.fail("it has joined")


async def test_a_rebalance_removes_nobody() -> None:
    """Another member comes: this one joins the next generation."""
    group = FakeGroup({HEARTBEAT: [0, Code.REBALANCE_IN_PROGRESS]})
    async with joined(group) as (membership, assignments):
        await eventually(lambda: len(assignments.assigned) == 2, WITHIN, "the next assignment")
        membership.check()
        assert membership.member() == GroupMember("loans", 2, "m", "w0")
        assert assignments.assigned == [{TopicPartition("t", 0)}] * 2


@pytest.mark.parametrize("refused", [HEARTBEAT, JOIN, SYNC])
async def test_a_coordinator_that_moves_removes_nobody(refused: str) -> None:
    """The next one knows the member."""
    group = FakeGroup({HEARTBEAT: [Code.REBALANCE_IN_PROGRESS]} if refused != HEARTBEAT else {})
    async with joined(group) as (membership, assignments):
        group.codes.setdefault(refused, []).append(Code.NOT_COORDINATOR)
        group.node = 2
        await eventually(lambda: (HEARTBEAT, 2) in group.sent, WITHIN, "a heartbeat to the next coordinator")
        membership.check()
        assert len(assignments.assigned) == (1 if refused == HEARTBEAT else 2)


@pytest.mark.parametrize(
    "codes",
    [
        {JOIN: [MEMBER_ID_REQUIRED, Code.UNKNOWN_MEMBER_ID, MEMBER_ID_REQUIRED]},
        {SYNC: [Code.UNKNOWN_MEMBER_ID]},
        {SYNC: [Code.ILLEGAL_GENERATION], JOIN: [0, Code.UNKNOWN_MEMBER_ID]},
    ],
    ids=str,
)
async def test_a_first_join_may_take_several_tries(codes: dict[str, list[int]]) -> None:
    """A member gets its id from the group, and a coordinator that moves may forget one that it has just given."""
    group = FakeGroup(codes)
    async with joined(group, None) as (membership, assignments):
        membership.check()
        assert len(assignments.assigned) == 1 and not any(codes.values())


# --- topics that change -----------------------------------------------------------------------------------------------


async def test_new_partitions_make_a_member_join_again_with_other_metadata() -> None:
    """Whoever leads: a coordinator rebalances when a known member's metadata has changed, and else gives back what is
    assigned.
    """
    group = FakeGroup()
    async with joined(group) as (_, assignments):
        group.tell()
        assert len(group.joins) == 1
        group.partitions, group.user_data = 2, encode({"t": 2})
        group.tell()
        await eventually(lambda: len(assignments.assigned) == 2, WITHIN, "the next assignment")
        group.tell()
        assert len(group.joins) == len(set(group.joins)) == 2


async def test_a_topic_that_is_not_known_now_changes_nothing() -> None:
    """It may be deleted, or a broker may not have heard of it: a rebalance would not help."""
    group = FakeGroup()
    async with joined(group):
        group.partitions = 0
        group.tell()
        assert len(group.joins) == 1


async def test_a_rebalance_that_did_not_help_is_asked_for_at_growing_intervals() -> None:
    """The leader may read its metadata from a broker that is behind; rebalances stop every lane."""
    group, now = FakeGroup(partitions=2), 0.0
    asked: list[float] = []
    async with joined(group) as (membership, assignments):
        coordinator: Any = membership._coordinator
        coordinator._clock = lambda: now
        coordinator._ask_after = AGAIN[0]  # the first one was asked for at 0, when it joined
        await eventually(lambda: len(assignments.assigned) == 2, WITHIN, "the assignment that did not help")
        for second in range(1, 40):
            now = float(second)
            before = coordinator._lanes.joins
            group.tell()
            if coordinator._lanes.joins > before:
                asked.append(now)
                n = len(assignments.assigned)
                await eventually(lambda n=n: len(assignments.assigned) > n, WITHIN, "the next one")  # type: ignore[misc]
        assert asked == [5.0, 15.0, 35.0]


async def test_a_leader_of_an_earlier_release_is_asked_once() -> None:
    """It does not say what it knew."""
    group = FakeGroup(user_data=b"")
    async with joined(group) as (_, assignments):
        await eventually(lambda: len(assignments.assigned) == 2, WITHIN, "the second assignment")
        for _ in range(3):
            group.tell()
            await asyncio.sleep(0)
        assert len(group.joins) == 2


async def test_a_static_member_with_another_subscription_has_the_group_rebalance() -> None:
    """It gets its old assignment first. The topics that it no longer reads are left out of that."""
    group = FakeGroup(assigned=[("gone", [0]), ("t", [0])], user_data=encode({"gone": 1, "t": 1}))
    async with joined(group) as (membership, assignments):
        membership.check()
        group.assigned, group.user_data = [("t", [0])], encode({"t": 1})
        await eventually(lambda: len(assignments.assigned) >= 2, WITHIN, "the second assignment")
        assert assignments.assigned[:2] == [{TopicPartition("t", 0)}] * 2
