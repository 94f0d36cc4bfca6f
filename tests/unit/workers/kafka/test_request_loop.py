"""A request is sent until it is answered, to the broker that can answer it, and never after a final answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import (
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    NodeNotReadyError,
    RequestTimedOutError,
)

from failsoft.workers.kafka import fetcher, requests
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.protocol import EndTxnResponse_v5, OffsetCommitResponse_v8
from failsoft.workers.kafka.request_errors import Code, Remedy
from failsoft.workers.kafka.request_loop import (
    ANY,
    AnswerIncomplete,
    ClientFenced,
    CoordinatorKind,
    RequestLoop,
    RequestRefused,
    together,
)
from failsoft.workers.kafka.transactional_producer import LEADERS

A0, A1 = TopicPartition("a", 0), TopicPartition("a", 1)
END = requests.end_transaction("t", (7, 3), bumps=True)
COMMIT = requests.offset_commit(GroupMember("g", 5, "m", None), {A0: (9, ""), A1: (3, "")})
TRANSACTION, GROUP = CoordinatorKind.TRANSACTION, CoordinatorKind.GROUP


def _ended(code: int = 0) -> Any:
    return EndTxnResponse_v5(0, code, 7, 4, {})


def _committed(**codes: int) -> Any:
    return OffsetCommitResponse_v8(0, [("a", [(int(p[1:]), code, {}) for p, code in codes.items()], {})], {})


class Answers:
    """A client that gives one answer after the other, raises those that are errors, and notes each call."""

    def __init__(self, answers: list[Any], lookups: list[Any] | None = None) -> None:
        self.answers, self.lookups = answers, lookups or [1, 2, 3]
        self.calls: list[tuple[Any, ...]] = []
        self.waits: list[float] = []
        self.cluster = SimpleNamespace(unauthorized_topics=set(), partitions_for_topic=lambda t: self.known.get(t))
        self.known: dict[str, set[int]] = {}

    async def send(self, node: Any, request: Any, *, group: Any) -> Any:
        self.calls.append((node, request.name, group))
        return _give(self.answers)

    async def coordinator_lookup(self, kind: int, key: str) -> Any:
        self.calls.append(("lookup", kind, key))
        return _give(self.lookups)

    def get_random_node(self) -> int:
        return 9

    def force_metadata_update(self) -> None:
        self.calls.append(("metadata",))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def loop(self) -> RequestLoop:
        return RequestLoop(self, self.sleep, lambda: 2.0 * len(self.waits))  # type: ignore[arg-type]


def _give(answers: list[Any]) -> Any:
    found = answers.pop(0)
    if isinstance(found, BaseException):
        raise found
    return found


async def test_no_connection_is_one_of_aiokafkas_own() -> None:
    """A request on the connection of aiokafka's group coordinator would wait behind a join, which takes seconds."""
    names = {*(kind.connection for kind in CoordinatorKind), ANY, LEADERS, fetcher.CONNECTION}
    assert len(names) == 5 and names.isdisjoint(ConnectionGroup)


async def test_the_coordinator_is_looked_up_once() -> None:
    """Later requests for the same key go to the broker that the first lookup named, on that kind's own connection."""
    client = Answers([_ended(), _ended(), _committed(p0=0, p1=0)])
    loop = client.loop()
    assert (await loop.ask(END, TRANSACTION, "t")).producer_epoch == 4
    await loop.ask(END, TRANSACTION, "t")
    await loop.ask(COMMIT, GROUP, "g")
    assert client.calls == [
        ("lookup", TRANSACTION, "t"),
        (1, "EndTxn", "transaction"),
        (1, "EndTxn", "transaction"),
        ("lookup", GROUP, "g"),
        (2, "OffsetCommit", "group"),
    ]
    assert client.waits == [] and loop.trouble == "" and loop.lost == 0


async def test_a_coordinator_that_moved_is_looked_up_again() -> None:
    """After NOT_COORDINATOR the next try goes where a new lookup says; a coordinator that loads is only waited for."""
    client = Answers([_ended(Code.NOT_COORDINATOR), _ended(Code.COORDINATOR_LOAD_IN_PROGRESS), _ended()])
    loop = client.loop()
    await loop.ask(END, TRANSACTION, "t")
    assert [call for call in client.calls if call[0] != "metadata"] == [
        ("lookup", TRANSACTION, "t"),
        (1, "EndTxn", "transaction"),
        ("lookup", TRANSACTION, "t"),
        (2, "EndTxn", "transaction"),
        (2, "EndTxn", "transaction"),
    ]
    assert client.waits == [0.002, 0.004]
    assert loop.trouble == "EndTxn refused: COORDINATOR_LOAD_IN_PROGRESS"


@pytest.mark.parametrize(
    ("error", "lost"), [(NodeNotReadyError(), 0), (KafkaConnectionError("broken"), 1), (RequestTimedOutError(), 1)]
)
async def test_a_request_without_an_answer_is_sent_again(error: Exception, lost: int) -> None:
    """The broker may have moved, so it is looked up again; only a request that left may still arrive."""
    client = Answers([error, _ended()])
    loop = client.loop()
    await loop.ask(END, TRANSACTION, "t")
    assert [node for node, *_ in client.calls] == ["lookup", 1, "metadata", "lookup", 2]
    assert loop.lost == lost
    assert "EndTxn v5: no answer" in loop.trouble


async def test_a_final_code_is_raised_with_what_and_why() -> None:
    """The error names the request, the partition and the meaning; a takeover has a class of its own."""
    client = Answers(
        [_committed(p0=0, p1=Code.OFFSET_METADATA_TOO_LARGE), _committed(p0=0, p1=Code.ILLEGAL_GENERATION)]
    )
    loop = client.loop()
    with pytest.raises(
        RequestRefused, match=r"OffsetCommit of a-1 refused: OFFSET_METADATA_TOO_LARGE: .*longer"
    ) as one:
        await loop.ask(COMMIT, GROUP, "g")
    assert not isinstance(one.value, ClientFenced) and one.value.partition == A1
    with pytest.raises(ClientFenced, match="ILLEGAL_GENERATION: the group has given") as other:
        await loop.ask(COMMIT, GROUP, "g")
    assert (other.value.request, other.value.code) == ("OffsetCommit", Code.ILLEGAL_GENERATION)
    assert client.waits == []


async def test_one_refused_partition_is_final_though_another_could_be_tried_again() -> None:
    """The order of the partitions does not matter."""
    for codes in ((Code.COORDINATOR_LOAD_IN_PROGRESS, Code.UNKNOWN_MEMBER_ID), (Code.UNKNOWN_MEMBER_ID, 0)):
        client = Answers([_committed(p0=codes[0], p1=codes[1])])
        with pytest.raises(ClientFenced, match="UNKNOWN_MEMBER_ID"):
            await client.loop().ask(COMMIT, GROUP, "g")


async def test_a_response_that_leaves_out_a_partition_is_no_success() -> None:
    """What a response does not name may not have happened."""
    with pytest.raises(AnswerIncomplete, match=r"OffsetCommit: .*partition=1"):
        await Answers([_committed(p0=0)]).loop().ask(COMMIT, GROUP, "g")


async def test_a_lookup_is_repeated_or_final_by_the_same_table() -> None:
    """A coordinator that is not there yet is waited for; a group that may not be used is an error."""
    client = Answers([_ended()], [CoordinatorNotAvailableError(), NodeNotReadyError(), 5])
    await client.loop().ask(END, TRANSACTION, "t")
    assert client.calls[-1] == (5, "EndTxn", "transaction") and len(client.waits) == 2
    with pytest.raises(RequestRefused, match="FindCoordinator refused: GROUP_AUTHORIZATION_FAILED"):
        await Answers([], [GroupAuthorizationFailedError()]).loop().ask(COMMIT, GROUP, "g")


async def test_what_no_retry_can_mend_is_raised() -> None:
    """A broker that is too old stays too old."""
    with pytest.raises(IncompatibleBrokerVersion):
        await Answers([IncompatibleBrokerVersion("EndTxn v5 is needed")]).loop().ask(END, TRANSACTION, "t")


async def test_a_request_for_any_broker_needs_no_lookup() -> None:
    """An idempotent producer gets its id from whichever broker."""
    client = Answers([_ended()])
    await client.loop().ask(END)
    assert client.calls == [(9, "EndTxn", ANY)]


async def test_topics_are_waited_for_and_a_forbidden_one_is_an_error() -> None:
    """In an outage, metadata may lack a topic for a while; a topic without permission will stay away."""
    client = Answers([])
    loop = client.loop()

    async def arrive(_: float) -> None:
        client.known["a"] = {0}

    loop._sleep = arrive
    await loop.know(["a"])
    assert client.calls == [("metadata",)] and loop.trouble == "no metadata of a"
    client.cluster.unauthorized_topics.add("b")
    with pytest.raises(RequestRefused, match="Metadata of b refused: TOPIC_AUTHORIZATION_FAILED"):
        await loop.know(["a", "b"])


async def test_metadata_is_asked_for_only_where_it_may_help() -> None:
    """A wait for markers is no reason to ask every 2 ms for the whole cluster."""
    client = Answers([])
    for after, asked in ((Remedy.MARKERS, 0), (Remedy.WAIT, 0), (Remedy.METADATA, 1), (Remedy.COORDINATOR, 1)):
        client.calls.clear()
        loop = client.loop()
        await loop.pause(after, 1, loop.trouble_log())
        assert len(client.calls) == asked


async def test_a_request_that_waits_long_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that cannot open is not silent. Each try takes 2 s here: after three, and then after five more."""
    client = Answers([_ended(Code.COORDINATOR_LOAD_IN_PROGRESS)] * 9 + [_ended()])
    await client.loop().ask(END, TRANSACTION, "t")
    assert [r.getMessage() for r in caplog.records] == [
        f"still trying after {seconds} s: EndTxn refused: COORDINATOR_LOAD_IN_PROGRESS" for seconds in (6, 16)
    ]
    assert {r.levelname for r in caplog.records} == {"WARNING"}


@pytest.mark.parametrize("what", ["lookup", "metadata"])
async def test_a_wait_for_a_coordinator_or_for_metadata_says_why(caplog: pytest.LogCaptureFixture, what: str) -> None:
    """The next request cannot even be sent."""
    client = Answers([_ended()], [CoordinatorNotAvailableError()] * 4 + [1])
    loop = client.loop()
    if what == "lookup":
        await loop.ask(END, TRANSACTION, "t")
    else:
        client.force_metadata_update = lambda: client.known.update({"a": {0}} if len(client.waits) > 2 else {})  # type: ignore[method-assign]
        await loop.know(["a"])
    (record,) = caplog.records
    assert {"lookup": "FindCoordinator refused: COORDINATOR_NOT_AVAILABLE", "metadata": "no metadata of a"}[
        what
    ] in record.getMessage()


async def test_the_first_error_ends_all_of_them() -> None:
    """The others are cancelled and have ended when the error is raised, so nothing is sent after it."""
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fail() -> None:
        raise RequestRefused("Produce", Code.MESSAGE_TOO_LARGE, A0)

    with pytest.raises(RequestRefused, match="Produce of a-0 refused: MESSAGE_TOO_LARGE"):
        await together(wait(), fail(), wait())
    assert ended == ["cancelled"] * 2
