"""The transactional client against a model of Kafka: whatever gets lost, every event is answered exactly once."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from failsoft.workers.kafka import stable_offsets as offsets_module
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.produce_batches import Batch, new_batch
from failsoft.workers.kafka.request_errors import Remedy
from failsoft.workers.kafka.requests import NO_PRODUCER
from failsoft.workers.kafka.sealed_batches import Queues
from failsoft.workers.kafka.transactional_producer import ProducerBroken, TransactionalProducer
from tests.model_broker import ModelBroker
from tests.model_client import FAULTS, ModelClient, Network

T = TypeVar("T")
INPUT = TopicPartition("in", 0)
OUTPUTS = [TopicPartition("out", 0), TopicPartition("out", 1)]
FAULT = st.sampled_from((*FAULTS, "late", "arrive", "unanswered"))
# Some requests that go well before each fault: a client that fails at once shows nothing.
SCRIPTS = st.lists(st.tuples(st.integers(0, 5), FAULT), max_size=5).map(
    lambda parts: [word for well, fault in parts for word in (*["ok"] * well, fault)]
)


@dataclass
class Worker:
    """A client in its place: its events begin at ``position``."""

    client: ModelClient
    producer: TransactionalProducer
    member: GroupMember
    position: int
    failed: bool = False


class World:
    """Workers that follow one another, of one group that reads one partition. Event n is answered on output n % 2.

    Args:
        network: the broker and its late requests.
        kind: the producer's class.
        require_stable: how a new worker reads the group's offset.
        options: of the producer.
    """

    def __init__(
        self,
        network: Network,
        kind: type[TransactionalProducer] = TransactionalProducer,
        *,
        require_stable: bool = True,
        **options: Any,
    ) -> None:
        self.network, self.broker = network, network.broker
        self.kind, self.require_stable, self.options = kind, require_stable, options
        self.workers: list[Worker] = []
        self.promised = 0

    async def take_over(self, script: Sequence[str] = (), same_id: bool = True) -> None:
        """The partition goes to a new worker; the former one does not know it."""
        if self.workers:
            self.broker.rebalance("g")
        group = self.broker.group("g")
        member = GroupMember("g", group.generation, group.member, None)
        client = ModelClient(self.network, script)
        name = "t" if same_id else f"t{len(self.workers)}"
        producer = self.kind(client, name, 1000, sleep=client.sleep, **self.options)  # type: ignore[arg-type]
        try:
            await producer.start()
            await producer.load(["out"])
            position, _ = (await self._offsets(client)).get(INPUT, (0, ""))
        except KafkaError:
            return  # another one will start
        self.workers.append(Worker(client, producer, member, position))

    async def _offsets(self, client: ModelClient) -> Mapping[TopicPartition, tuple[int, str]]:
        """The committed offset of the input, once it is final."""
        sleep = self._patient(client)
        while True:
            found, unstable = await offsets_module.stable_offsets(
                client,  # type: ignore[arg-type]
                "g",
                [INPUT],
                require_stable=self.require_stable,
                sleep=sleep,
            )
            if not unstable:
                return found
            await sleep(0.05)

    def _patient(self, client: ModelClient) -> Any:
        """An unstable offset becomes stable when the transaction expires."""

        async def sleep(seconds: float) -> None:
            if len(client.waits) > 60:
                self.broker.expire()
            await client.sleep(seconds)

        return sleep

    async def commit(
        self, worker: Worker, events: int, script: Sequence[str] = (), cancel_after: int | None = None
    ) -> None:
        """Commit the next ``events`` of a worker; no event is for a batch of crash marks."""
        worker.client.script.extend(script)
        end = worker.position + events
        outputs = [(OUTPUTS[n % 2], [one_record(worker.producer, b"%d" % n)]) for n in range(worker.position, end)]
        sent = len(worker.client.sent)
        task = asyncio.ensure_future(worker.producer.commit(outputs, {INPUT: (end, "m")}, worker.member))
        try:
            if cancel_after is not None:
                await steps(cancel_after)
                task.cancel()
            await task
        except ProducerBroken:
            assert worker.failed and len(worker.client.sent) == sent, "a broken producer sends nothing"
        except (KafkaError, asyncio.CancelledError):
            assert not worker.failed
            worker.failed = True
        else:
            assert not worker.failed, "a broken producer has committed"
            worker.position = end
            self.promised = max(self.promised, end)
        worker.client.script.clear()

    def check(self) -> None:
        """Whatever arrives late or not at all: each event before the offset is answered once, no other one is."""
        for arrivals in (False, True):
            network = copy.deepcopy(self.network)
            network.broker.settle()
            if arrivals:
                network.arrive()
                network.broker.settle()
            committed, _ = network.broker.group("g").offsets.get(INPUT, (0, ""))
            history = network.broker.group("g").history
            assert committed >= self.promised, "a commit that returned is not there"
            assert history == sorted(history), "the group's offset went back"
            for number, partition in enumerate(OUTPUTS):
                visible = [int(label) for label in network.broker.logs[partition].visible()]
                assert visible == [n for n in range(committed) if n % 2 == number], "not once each, in order"


def one_record(producer: TransactionalProducer, label: bytes) -> Batch:
    batch = new_batch(True)
    batch.append(timestamp=1, key=None, value=label)
    batch.close()
    return batch


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Transactions(RuleBasedStateMachine):
    """Workers commit, die, are fenced and followed, over a network that loses and delays."""

    @initialize(
        v2=st.booleans(),
        verifies=st.booleans(),
        remembers=st.sampled_from([0, 5]),
        markers_after=st.integers(0, 3),
        unused=st.booleans(),
    )
    def cluster(self, v2: bool, verifies: bool, remembers: int, markers_after: int, unused: bool) -> None:
        """``unused``: the cluster has transactions v2, and the client does without."""
        broker = ModelBroker(OUTPUTS, v2=v2, verifies=verifies, remembers=remembers, markers_after=markers_after)
        self.loop = asyncio.new_event_loop()
        options = {"transactions_v2": not unused}
        self.world = World(Network(broker), **options)
        self.run(self.world.take_over())

    def run(self, what: Awaitable[T]) -> T:
        return self.loop.run_until_complete(what)

    @rule(script=SCRIPTS, same_id=st.booleans())
    def take_over(self, script: list[str], same_id: bool) -> None:
        """A new worker, with the id of the last one or another."""
        self.run(self.world.take_over(script, same_id))

    @rule(
        which=st.integers(0, 3), events=st.integers(0, 5), script=SCRIPTS, cancel_after=st.none() | st.integers(1, 60)
    )
    def commit(self, which: int, events: int, script: list[str], cancel_after: int | None) -> None:
        """The newest worker commits, or one that it has followed."""
        worker = self.world.workers[-1 - min(which, len(self.world.workers) - 1)]
        self.run(self.world.commit(worker, events, script, cancel_after))

    @rule(
        events=st.integers(1, 3), script=SCRIPTS, other_script=SCRIPTS, same_id=st.booleans(), after=st.integers(0, 30)
    )
    def take_over_during_a_commit(
        self, events: int, script: list[str], other_script: list[str], same_id: bool, after: int
    ) -> None:
        """A new worker starts while the newest one commits."""
        worker = self.world.workers[-1]

        async def overlap() -> None:
            commit = asyncio.ensure_future(self.world.commit(worker, events, script))
            await steps(after)
            await self.world.take_over(other_script, same_id)
            await commit

        self.run(overlap())

    @rule(event=st.sampled_from(["arrive", "move coordinators", "move leaders", "expire"]))
    def cause(self, event: str) -> None:
        """Something happens between two commits."""
        self.world.network.cause(event)

    @invariant()
    def exactly_once(self) -> None:
        """Every event before the group's offset is answered once."""
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """Close the event loop."""
        if hasattr(self, "loop"):
            self.loop.close()


Transactions.TestCase.settings = settings(max_examples=200, stateful_step_count=12, deadline=None)
TestTransactions = Transactions.TestCase


# --- the machine has teeth: clients with a defect, each in the one conversation that shows it -------------------------


class CountsOn(TransactionalProducer):
    """Gives a batch that is sent again the next sequence numbers."""

    async def _send(self, node: int, batches: Any, queues: Queues) -> Remedy:
        lost = self._requests.lost
        after = await super()._send(node, batches, queues)
        for partition in batches if self._requests.lost > lost else ():
            again = one_record(self, b"0")
            again._set_producer_state(*self.producer, self._sequences.take(partition, 1))
            queues[partition][0] = again._build()
        return after


class EndsAnyway(TransactionalProducer):
    """Commits although a batch was refused."""

    async def _write(self, queues: Queues) -> None:
        try:
            await super()._write(queues)
        except KafkaError:
            return


class KeepsEpoch(TransactionalProducer):
    """Ignores that a late request may still arrive."""

    async def _take_epoch(self, replaces: tuple[int, int]) -> None:
        if replaces == NO_PRODUCER:
            await super()._take_epoch(replaces)


async def _resend(world: World) -> None:
    """The answer to the Produce request of the first transaction gets lost."""
    await world.take_over()
    await world.commit(world.workers[0], 1, ["ok", "ok", "unanswered"])


async def _refusal(world: World) -> None:
    """The broker refuses a batch."""
    await world.take_over()
    world.broker.refuse_produce = 1
    await world.commit(world.workers[0], 1)


async def _late_end(world: World) -> None:
    """A copy of EndTxn arrives in the middle of the next transaction, which then fails."""
    await world.take_over()
    await world.commit(world.workers[0], 1, ["ok"] * 4 + ["late"])
    world.broker.refuse_produce = 1
    await world.commit(world.workers[0], 1, ["ok"] * 4 + ["arrive"] + ["ok"] * 9)
    await world.take_over()


async def _late_owner(world: World) -> None:
    """The partition moves while the former owner's transaction has everything but its end."""
    await world.take_over()
    worker = world.workers[0]
    commit = asyncio.ensure_future(world.commit(worker, 1, ["ok"] * 4 + ["not sent"] * 12))
    while not worker.client.waits:
        await asyncio.sleep(0)
    await world.take_over(same_id=False)
    await commit
    await world.commit(world.workers[-1], 1)


DEFECTS: list[tuple[Any, type[TransactionalProducer], bool, str]] = [
    (_resend, CountsOn, True, "not once each"),
    (_refusal, EndsAnyway, True, "not once each"),
    (_late_end, KeepsEpoch, True, "not once each"),
    (_late_owner, TransactionalProducer, False, "not once each"),
]


def _verdict(conversation: Any, kind: type[TransactionalProducer], require_stable: bool) -> str:
    """What ``World.check`` finds after a conversation; "" if nothing is wrong."""

    async def converse() -> None:
        world = World(Network(ModelBroker(OUTPUTS, verifies=False)), kind, require_stable=require_stable)
        await conversation(world)
        world.check()

    try:
        asyncio.run(converse())
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("conversation", "kind", "require_stable", "found"), DEFECTS)
def test_a_defect_is_noticed(conversation: Any, kind: Any, require_stable: bool, found: str) -> None:
    """A client with a defect fails the check in a conversation that the real client passes."""
    assert found in _verdict(conversation, kind, require_stable)
    assert _verdict(conversation, TransactionalProducer, True) == ""
