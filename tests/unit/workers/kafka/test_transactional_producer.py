"""The steps of a transaction, their order, and what breaks a producer; against the model broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from failsoft.workers.kafka import sealed_batches
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.produce_batches import new_batch
from failsoft.workers.kafka.request_errors import Code
from failsoft.workers.kafka.request_loop import ClientFenced, RequestRefused
from failsoft.workers.kafka.transactional_producer import ProducerBroken, TransactionalProducer
from tests.model_broker import ModelBroker
from tests.model_client import ModelClient, Network

IN = TopicPartition("in", 0)
OUT = [TopicPartition("out", 0), TopicPartition("out", 1)]
MEMBER = GroupMember("g", 1, "m1", None)
OFFSETS = {IN: (1, "!")}


class Setting:
    """A model broker, a client and a started producer."""

    def __init__(self, name: str | None = "t", *, broker: ModelBroker | None = None, **options: Any) -> None:
        self.broker = broker or ModelBroker(OUT)
        self.network = Network(self.broker)
        self.client = ModelClient(self.network)
        self.transactional = name is not None
        self.producer = TransactionalProducer(
            self.client,  # type: ignore[arg-type]
            name,
            1000,
            sleep=self.client.sleep,
            **options,
        )

    async def start(self) -> Setting:
        await self.producer.start()
        await self.producer.load(["out"])
        self.broker.handled.clear()
        return self

    def outputs(self, *labels: bytes, partition: TopicPartition = OUT[0]) -> Any:
        batches = []
        for label in labels:
            batch = new_batch(self.transactional)
            batch.append(timestamp=1, key=None, value=label)
            batch.close()
            batches.append(batch)
        return (partition, batches)

    async def commit(self, *labels: bytes, member: GroupMember = MEMBER, offset: int = 1) -> None:
        await self.producer.commit([self.outputs(*labels)] if labels else [], {IN: (offset, "!")}, member)

    def visible(self) -> list[bytes]:
        self.broker.settle()
        return [label for log in self.broker.logs.values() for label in log.visible()]

    def committed(self) -> Any:
        self.broker.settle()
        return self.broker.group("g").offsets.get(IN)

    def names(self) -> list[str]:
        """What the broker was asked, with versions, without "Request"."""
        return [name.replace("Request", "") for name in self.broker.handled]


async def test_a_transaction_is_five_requests_in_three_rounds() -> None:
    """Partitions and offsets are added at once, then written at once, and only then the transaction ends."""
    s = await Setting().start()
    await s.commit(b"x")
    names = s.names()
    assert set(names[:2]) == {"AddPartitionsToTxn_v0", "AddOffsetsToTxn_v0"}
    assert set(names[2:4]) == {"Produce_v8", "TxnOffsetCommit_v3"}
    assert names[4:] == ["EndTxn_v0"]
    assert s.visible() == [b"x"] and s.committed() == (1, "!")


async def test_the_timeout_of_a_leaders_replicas_is_not_that_of_the_transaction() -> None:
    """A leader must refuse before its answer is given up; a transaction lasts for several tries."""
    s = await Setting(replicas_timeout_ms=20).start()
    await s.commit(b"x")
    sent = {type(t).__name__: t for t in s.client.sent}
    assert sent["ProduceRequest_v8"].timeout == 20
    assert sent["InitProducerIdRequest_v3"].transaction_timeout_ms == 1000


async def test_with_transactions_v2_each_transaction_has_its_epoch() -> None:
    """EndTxn returns the next epoch, in which sequences begin at 0. The partitions are added as before."""
    s = await Setting(broker=ModelBroker(OUT, v2=True)).start()
    assert s.producer.transactions_v2
    epochs = []
    for number in range(3):
        epochs.append(s.producer.producer[1])
        await s.commit(b"%d" % number, offset=number + 1)
    assert epochs == [0, 1, 2] and s.producer.producer[1] == 3
    assert {"AddPartitionsToTxn_v0", "Produce_v12", "TxnOffsetCommit_v5", "EndTxn_v5"} <= set(s.names())
    assert s.visible() == [b"0", b"1", b"2"] and s.committed() == (3, "!")


async def test_transactions_v2_can_be_left_unused() -> None:
    """A cluster that has them still takes the older requests."""
    s = await Setting(broker=ModelBroker(OUT, v2=True), transactions_v2=False).start()
    await s.commit(b"x")
    assert not s.producer.transactions_v2 and s.names()[-1] == "EndTxn_v0" and s.visible() == [b"x"]


async def test_without_an_id_outputs_come_before_the_offsets() -> None:
    """At least once: an offset is never committed before every output is in its log."""
    s = await Setting(None).start()
    await s.commit(b"x", b"y")
    assert s.names() == ["Produce_v8", "Produce_v8", "OffsetCommit_v8"]
    assert s.visible() == [b"x", b"y"] and s.committed() == (1, "!")


async def test_without_an_id_a_refused_output_commits_no_offset() -> None:
    """Otherwise the events would be lost."""
    s = await Setting(None).start()
    s.broker.refuse_produce = 1
    with pytest.raises(RequestRefused, match="MESSAGE_TOO_LARGE"):
        await s.commit(b"x")
    assert s.committed() is None


@pytest.mark.parametrize("name", [None, "t"])
async def test_batches_of_a_partition_keep_their_order(name: str | None) -> None:
    """Also over several entries of one partition: each request has one batch, and waits for the one before."""
    s = await Setting(name).start()
    outputs = [s.outputs(b"1", b"2"), s.outputs(b"9", partition=OUT[1]), s.outputs(b"3")]
    s.client.script.extend(["ok"] * 2 * bool(name) + ["lost", "unanswered", "late", "move leaders"])
    await s.producer.commit(outputs, OFFSETS, MEMBER)
    s.network.arrive()
    assert s.visible() == [b"1", b"2", b"3", b"9"]


async def test_a_transaction_of_offsets_alone_is_one() -> None:
    """Crash marks are written with nothing else."""
    s = await Setting().start()
    await s.commit()
    assert s.names() == ["AddOffsetsToTxn_v0", "TxnOffsetCommit_v3", "EndTxn_v0"] and s.committed() == (1, "!")


async def test_a_transaction_without_offsets_is_refused() -> None:
    """Its outputs would be written again. Nothing was sent, so the producer stays usable."""
    s = await Setting().start()
    with pytest.raises(ValueError, match="without offsets"):
        await s.producer.commit([s.outputs(b"x")], {}, MEMBER)
    assert s.names() == []
    await s.commit(b"x")


@pytest.mark.parametrize("v2", [False, True])
async def test_a_lost_answer_repeats_the_same_bytes(v2: bool) -> None:
    """The log knows the copy by its sequence numbers, however much of the producer it remembers."""
    for remembers in (0, 5):
        s = await Setting(broker=ModelBroker(OUT, v2=v2, remembers=remembers)).start()
        s.client.script.extend(["ok"] * 2 + ["unanswered"] * 5)
        await s.commit(b"x")
        sent = [t for t in s.client.sent if type(t).__name__.startswith("Produce")]
        assert len(sent) > 1 and len({bytes(t.encode()) for t in sent}) == 1
        assert s.visible() == [b"x"] and s.committed() == (1, "!")


async def test_an_end_whose_answer_was_lost_is_recognised() -> None:
    """With transactions v2 the epoch has moved on already; the coordinator knows the copy by the epoch before."""
    for v2 in (False, True):
        s = await Setting(broker=ModelBroker(OUT, v2=v2)).start()
        s.client.script.extend(["ok"] * 4 + ["unanswered"] * 2)
        await s.commit(b"x")
        assert s.names()[-3:] == [f"EndTxn_v{5 if v2 else 0}"] * 3
        await s.commit(b"y", offset=2)
        assert s.visible() == [b"x", b"y"] and s.committed() == (2, "!")


async def test_a_late_copy_cannot_reach_the_next_transaction() -> None:
    """Before transactions v2, a request without an answer costs a new epoch; no other transaction pays for it."""
    s = await Setting().start()
    s.client.script.extend(["ok"] * 4 + ["late"])
    await s.commit(b"x")
    assert s.producer.producer[1] == 0
    s.client.script.extend(["ok"] * 3 + ["arrive"])
    await s.commit(b"y", offset=2)
    assert s.producer.producer[1] == 1
    await s.commit(b"z", offset=3)
    assert s.producer.producer[1] == 1
    assert s.visible() == [b"x", b"y", b"z"] and s.committed() == (3, "!")


async def test_a_fenced_producer_does_not_fence_its_successor() -> None:
    """It asks for the epoch after its own, and there is none any more."""
    s = await Setting().start()
    s.client.script.extend(["ok"] * 4 + ["unanswered"])
    await s.commit(b"x")
    successor = await Setting(broker=s.broker).start()
    with pytest.raises(ClientFenced, match="InitProducerId refused: INVALID_PRODUCER_EPOCH"):
        await s.commit(b"y", offset=2)
    await successor.commit(b"z", offset=2)
    assert s.visible() == [b"x", b"z"]


async def test_a_start_aborts_what_the_id_left_open() -> None:
    """The next producer with the id need not wait for the transaction's timeout, and no reader sees its records."""
    s = await Setting().start()
    task = asyncio.ensure_future(s.commit(b"x"))
    while "TxnOffsetCommit_v3" not in s.names() or "Produce_v8" not in s.names():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    successor = await Setting(broker=s.broker).start()
    await successor.commit(b"y")
    assert s.visible() == [b"y"]


@pytest.mark.parametrize(
    ("member", "code"),
    [
        (GroupMember("g", 0, "m1", None), Code.ILLEGAL_GENERATION),
        (GroupMember("g", 1, "m0", None), Code.UNKNOWN_MEMBER_ID),
    ],
)
@pytest.mark.parametrize("name", [None, "t"])
async def test_an_old_member_commits_nothing(name: str | None, member: GroupMember, code: Code) -> None:
    """The group's coordinator refuses its offsets, and so its outputs never become visible in a transaction."""
    s = await Setting(name).start()
    with pytest.raises(ClientFenced) as refused:
        await s.commit(b"x", member=member)
    assert refused.value.code == code and s.committed() is None
    assert s.visible() == ([] if name else [b"x"])


@pytest.mark.parametrize("name", [None, "t"])
async def test_a_member_outside_a_group_is_not_checked(name: str | None) -> None:
    """Generation -1 is for tools that have no group."""
    s = await Setting(name).start()
    await s.commit(b"x", member=GroupMember("g", -1, "", None))
    assert s.committed() == (1, "!")


async def test_after_a_failure_nothing_is_sent_any_more() -> None:
    """A batch may be missing, so a later transaction would commit a gap; also after stop."""
    s = await Setting().start()
    s.broker.refuse_produce = 1
    with pytest.raises(RequestRefused, match="Produce of out-0 refused: MESSAGE_TOO_LARGE: the batch is larger"):
        await s.commit(b"x")
    assert "EndTxn_v0" not in s.names()
    sent = len(s.client.sent)
    for _ in range(2):
        with pytest.raises(ProducerBroken, match="an earlier commit failed: RequestRefused"):
            await s.commit(b"y")
    await s.producer.stop()
    assert len(s.client.sent) == sent and s.visible() == []


async def test_a_cancelled_commit_breaks_the_producer() -> None:
    """At whatever step: a caller whose time is up does not know what the broker has done."""
    outcomes = []
    for after in range(1, 100):
        s = await Setting().start()
        task = asyncio.ensure_future(s.commit(b"x"))
        for _ in range(after):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ProducerBroken):
            await s.commit(b"y")
        outcomes.append(s.visible() == [b"x"])
        assert s.visible() in ([], [b"x"]) and (s.committed() is not None) is outcomes[-1]
    assert len(outcomes) > 8 and set(outcomes) == {False, True}


async def test_a_producer_that_was_not_started_or_was_stopped_writes_nothing() -> None:
    """Without an epoch there is no fence; after stop the worker is about to end."""
    s = Setting()
    with pytest.raises(ProducerBroken, match="is not started"):
        await s.commit(b"x")
    await s.start()
    await s.producer.stop()
    with pytest.raises(ProducerBroken, match="is stopped"):
        await s.commit(b"x")
    assert s.names() == []


async def test_stop_waits_for_the_commit_that_is_under_way() -> None:
    """So that a worker that drains does not abort its last transaction."""
    s = await Setting().start()
    commit = asyncio.ensure_future(s.commit(b"x"))
    await asyncio.sleep(0)
    await s.producer.stop()
    assert commit.done() and s.visible() == [b"x"]


async def test_two_commits_at_once_are_refused() -> None:
    """A producer has one transaction. The first one is not disturbed."""
    s = await Setting().start()
    first = asyncio.ensure_future(s.commit(b"x"))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="under way"):
        await s.commit(b"y")
    await first
    assert s.visible() == [b"x"]


async def test_a_failed_start_may_be_repeated() -> None:
    """Nothing was written yet."""
    s = Setting()
    s.client.cluster.unauthorized_topics.add("secret")
    await s.producer.start()
    with pytest.raises(RequestRefused, match="Metadata of secret"):
        await s.producer.load(["secret"])
    await s.start()
    await s.commit(b"x")
    assert s.visible() == [b"x"]


async def test_a_partition_without_a_leader_is_waited_for() -> None:
    """In an outage the metadata lacks leaders, or whole topics; the producer asks again."""
    s = await Setting().start()
    s.client.leaders = {OUT[0]: -1}
    await s.producer.commit([s.outputs(b"x"), s.outputs(b"y", partition=OUT[1])], OFFSETS, MEMBER)
    assert s.visible() == [b"x", b"y"]


async def test_a_large_transaction_is_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is bounded; all of them are acknowledged before the end."""
    monkeypatch.setattr(sealed_batches, "REQUEST_BYTES", 10)
    s = await Setting().start()
    await s.producer.commit([s.outputs(b"x"), s.outputs(b"y", partition=OUT[1])], OFFSETS, MEMBER)
    assert s.names().count("Produce_v8") == 2 and s.names()[-1] == "EndTxn_v0"
    assert s.visible() == [b"x", b"y"]


async def test_trouble_says_what_a_commit_waits_for() -> None:
    """A caller whose time is up can say why."""
    s = await Setting().start()
    s.client.script.extend(["ok", "ok", "loading"])
    await s.commit(b"x")
    assert "COORDINATOR_LOAD_IN_PROGRESS" in s.producer.trouble
