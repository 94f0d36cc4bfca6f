"""Committed offsets are read when they are final, and no error is taken for a group without offsets."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    NodeNotReadyError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from failsoft.workers.kafka.partition_errors import place_of
from failsoft.workers.kafka.protocol import OffsetFetchResponse_v7
from failsoft.workers.kafka.request_errors import Code
from failsoft.workers.kafka.request_loop import AnswerIncomplete, RequestRefused
from failsoft.workers.kafka.stable_offsets import stable_offsets

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


def _offsets(*rows: tuple[TopicPartition, int, str | None, int], error: int = 0) -> Any:
    topics = [(p.topic, [(p.partition, offset, -1, text, code, {})], {}) for p, offset, text, code in rows]
    return OffsetFetchResponse_v7(0, topics, error, {})


FOUND = _offsets((A0, 5, "!m", 0), (A1, -1, "", 0), (B0, 0, None, 0))


class Coordinator:
    """A client whose group coordinator gives one answer after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[Any] = []
        self.lookups = 0
        self.waits: list[float] = []

    async def send(self, node: int, request: Any, *, group: Any) -> Any:
        self.requests.append(request.struct)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def coordinator_lookup(self, kind: int, key: str) -> int:
        assert (kind, key) == (0, "g")
        self.lookups += 1
        return 1

    def force_metadata_update(self) -> None:
        """Nothing to update."""

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def read(self, **options: Any) -> Any:
        return await stable_offsets(self, "g", [A0, A1, B0], sleep=self.sleep, **options)  # type: ignore[arg-type]


async def test_offsets_come_with_their_metadata() -> None:
    """A partition without a committed offset is left out; 0 is an offset; absent metadata is empty."""
    coordinator = Coordinator(FOUND)
    assert await coordinator.read() == ({A0: (5, "!m"), B0: (0, "")}, set())
    (request,) = coordinator.requests
    assert request.require_stable is True and request.group == "g"
    assert request.topics == [("a", [0, 1], {}), ("b", [0], {})]


async def test_unstable_offsets_are_told_apart() -> None:
    """An open transaction may still change one of them. The others are final, and nobody waits."""
    unstable = _offsets((A0, -1, "", Code.UNSTABLE_OFFSET_COMMIT), (A1, -1, "", 0), (B0, 7, "", 0))
    coordinator = Coordinator(unstable)
    assert await coordinator.read() == ({B0: (7, "")}, {A0})
    assert coordinator.waits == []


async def test_an_unstable_offset_beside_a_graver_error_is_asked_for_again() -> None:
    """The coordinator has moved: nothing that it says is true any more."""
    moved = _offsets((A0, -1, "", Code.UNSTABLE_OFFSET_COMMIT), (A1, -1, "", Code.NOT_COORDINATOR), (B0, 7, "", 0))
    coordinator = Coordinator(moved, FOUND)
    assert (await coordinator.read())[0][A0] == (5, "!m") and coordinator.lookups == 2


async def test_stability_can_be_given_up() -> None:
    """For tools that only look."""
    coordinator = Coordinator(FOUND)
    await coordinator.read(require_stable=False)
    assert coordinator.requests[0].require_stable is False


@pytest.mark.parametrize(
    ("trouble", "lookups"),
    [
        (_offsets(error=Code.NOT_COORDINATOR), 2),
        (_offsets(error=Code.COORDINATOR_NOT_AVAILABLE), 2),
        (_offsets(error=Code.COORDINATOR_LOAD_IN_PROGRESS), 1),
        (_offsets((A0, -1, "", Code.NOT_COORDINATOR), (A1, -1, "", 0), (B0, -1, "", 0)), 2),
        (NodeNotReadyError(), 2),
        (KafkaConnectionError("broken"), 2),
        (RequestTimedOutError(), 2),
    ],
)
async def test_a_coordinator_in_trouble_is_asked_again(trouble: Any, lookups: int) -> None:
    """The error of the whole response lists no partition, and is none the less an error (decision 0008)."""
    coordinator = Coordinator(trouble, FOUND)
    assert (await coordinator.read())[0][A0] == (5, "!m")
    assert coordinator.lookups == lookups


@pytest.mark.parametrize(
    "final",
    [
        _offsets(error=Code.GROUP_AUTHORIZATION_FAILED),
        _offsets((A0, -1, "", 9_999), (A1, -1, "", 0), (B0, 0, "", 0)),
    ],
)
async def test_a_final_error_is_raised(final: Any) -> None:
    """A group that may not be read is not a group without offsets."""
    with pytest.raises(RequestRefused, match="OffsetFetch"):
        await Coordinator(final).read()


async def test_a_response_without_a_partition_is_no_answer() -> None:
    """The partition would be read from its beginning."""
    with pytest.raises(AnswerIncomplete, match=r"topic='b'"):
        await Coordinator(_offsets((A0, 5, "", 0), (A1, 5, "", 0))).read()


async def test_no_partitions_need_no_request() -> None:
    """A worker may be given none."""
    assert await stable_offsets(Coordinator(), "g", []) == ({}, set())  # type: ignore[arg-type]


async def test_a_topic_that_may_not_be_seen_is_its_partitions_error() -> None:
    """It is no lack of an offset, and no error of the whole group."""
    refused = _offsets((A0, -1, "", Code.TOPIC_AUTHORIZATION_FAILED), (A1, 3, "", 0), (B0, 4, "", 0))
    with pytest.raises(TopicAuthorizationFailedError) as caught:
        await Coordinator(refused).read()
    assert place_of(caught.value) == (A0, None)
