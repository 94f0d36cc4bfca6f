"""Fetches partitions from the brokers that lead them, with a fetch session for each broker.

aiokafka's Fetcher names every partition in every request, and does not fetch from a broker while one partition of it
has unread records. Idle with a thousand partitions it used 9 to 16 % of a core; this one uses less than 1 %.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError

from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.fetch_by_id import FetchByIdCall, id_bytes
from failsoft.workers.kafka.fetch_pace import pause_after, retry_wait, wait_for_room
from failsoft.workers.kafka.fetch_position import FetchPosition
from failsoft.workers.kafka.fetch_protocol import FetchAnswer, FetchCall, PartitionAnswer
from failsoft.workers.kafka.fetched_broker import FetchedBroker
from failsoft.workers.kafka.partition_errors import (
    OFFSET_OUT_OF_RANGE,
    PASSING,
    TOPIC_AUTHORIZATION_FAILED,
    UNKNOWN_TOPIC_ID,
    UNKNOWN_TOPIC_OR_PARTITION,
    UNKNOWN_TRIES,
    partition_error,
)
from failsoft.workers.kafka.record_batch_sizes import RecordBatchSizes

log = logging.getLogger(__name__)

CONNECTION = "fetch"
"""The group of the connections for fetches. A broker answers the requests of a connection in turn, so any other request
on the same one would wait behind a fetch."""

PARTITION_BYTES = 3 * 1_048_576
"""The most bytes of a partition in one answer, unless ``read`` says otherwise."""

ANSWER_BYTES = 8 * 1_048_576
"""The most bytes of one answer, all of which becomes chunks at once. The CPU time is the same from 1 to 16 MiB."""

RETRY_AFTER = 0.1
"""Seconds until a partition or a broker that failed is tried again. Kafka's clients wait 100 ms too."""


class Fetcher:
    """Fetches partitions and delivers what it gets, a chunk at a time.

    Whoever takes the records calls ``pause`` when it has enough, also in ``deliver``, and ``resume`` when it has taken
    them. So no partition waits for another one.

    All methods belong to the event loop, and cost the same for any number of partitions. A change takes effect with the
    broker's next request: at once, or when the one in flight is answered, at most ``max_wait_ms`` later, and a
    moment after an answer with few records.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        deliver: Callable[[Chunk], None],
        failed: Callable[[TopicPartition, Exception], None],
        *,
        full: Callable[[], bool] = lambda: False,
        max_wait_ms: int = 50,
        max_bytes: int = ANSWER_BYTES,
        partition_bytes: int = PARTITION_BYTES,
        client_rack: str = "",
        retry_after: float = RETRY_AFTER,
    ) -> None:
        """Prepare; ``run`` fetches.

        Args:
            client: a client of its own that is connected to the cluster. ``stop`` closes it.
            deliver: takes each chunk. It may call the fetcher's methods. What it raises ends ``run``.
            failed: told once when a partition cannot be fetched. It is not fetched again until ``read``.
            full: whether the records that were delivered and not taken are too many for now.
            max_wait_ms: how long a broker waits for the first record, in milliseconds.
            max_bytes: the most bytes of one answer.
            partition_bytes: the most bytes of one partition in an answer, if ``read`` asks for more.
            client_rack: the worker's rack, so that a broker can name a nearer replica (KIP-392).
            retry_after: seconds until a partition or a broker that failed is tried again.
        """
        self._client, self._deliver, self._failed, self._full = client, deliver, failed, full
        self._max_wait_ms, self._max_bytes, self._rack = max_wait_ms, max_bytes, client_rack
        self._retry_after, self._partition_bytes = retry_after, partition_bytes
        self._positions: dict[TopicPartition, FetchPosition] = {}
        self._ids: Mapping[str, bytes] = {}
        self._batch_sizes, self._resized = RecordBatchSizes(max_bytes), set[str]()
        self._brokers: dict[int, FetchedBroker] = {}
        self._astray: set[FetchPosition] = set()  # those without a known leader
        self._leaderless: dict[TopicPartition, float] = {}  # since when, by the loop's clock
        self._metadata_wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[None] | None = None  # while it runs: resolved by what ends it
        self._ended = asyncio.Event()

    # --- what to fetch ---

    def identify(self, ids: Mapping[str, str]) -> None:
        """Fetch these topics only while they have these ids. To be called before they are read.

        Partitions of a topic that had another id fail with TopicReplaced.
        """
        new = {topic: id_bytes(found) for topic, found in ids.items()}
        if new.items() <= self._ids.items():
            return
        replaced = {topic for topic, found in new.items() if self._ids.get(topic, found) != found}
        self._ids = {**self._ids, **new}
        for broker in self._brokers.values():
            broker.stale = True
        for position in [p for p in self._positions.values() if p.tp.topic in replaced and not p.failed]:
            self._give_up(position, UNKNOWN_TOPIC_ID)

    def read(self, tp: TopicPartition, offset: int, max_bytes: int = PARTITION_BYTES) -> None:
        """Fetch ``tp`` from ``offset`` on, at most ``max_bytes`` in one answer; a larger batch comes whole. What is in
        flight for another offset is dropped.
        """
        max_bytes = min(max_bytes, self._partition_bytes)
        position = self._positions.get(tp)
        if position is None:
            position = self._positions[tp] = FetchPosition(tp, offset, max_bytes)
        position.begin(offset, max_bytes)
        self._place(position)

    def pause(self, tp: TopicPartition) -> None:
        """Do not fetch ``tp`` until ``resume``. What is in flight is dropped, and fetched again then."""
        if (position := self._positions.get(tp)) is not None:
            position.paused = True
            self._place(position)

    def resume(self, tp: TopicPartition) -> None:
        """Fetch ``tp`` again from its position. A partition that is not read, or that failed, is left alone."""
        if (position := self._positions.get(tp)) is not None:
            position.paused = False
            self._place(position)

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """Fetch ``tps`` no longer. What is in flight for them is dropped."""
        for tp in tps:
            if (position := self._positions.pop(tp, None)) is not None:
                position.paused = True
                self._place(position)

    def highwater(self, tp: TopicPartition) -> int | None:
        """The high watermark of ``tp`` by the last answer. None when it is not read, and after each ``read`` until the
        answer to a request that was sent later. ``pause`` keeps it.
        """
        position = self._positions.get(tp)
        return None if position is None else position.known.highwater

    def without_leader(self, seconds: float) -> list[TopicPartition]:
        """The partitions that could not be fetched for so long because no broker leads them."""
        before = asyncio.get_running_loop().time() - seconds
        return [tp for tp, since in self._leaderless.items() if since <= before]

    # --- running ---

    async def run(self) -> None:
        """Fetch until ``stop`` or cancellation. Raises what ``deliver`` or ``failed`` raised, and
        NotImplementedError if a broker is too old. Runs once.
        """
        self._end = asyncio.get_running_loop().create_future()
        self._client.cluster.add_listener(self._rearrange)
        try:
            self._start(self._find_leaders())
            for broker in self._brokers.values():
                self._start(self._serve(broker))
            await self._end
        finally:
            self._end.cancel()
            self._client.cluster.remove_listener(self._rearrange)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._ended.set()

    @property
    def client(self) -> AIOKafkaClient:
        """The client, also for questions about offsets. A heartbeat must not wait for them: a client opens one
        connection at a time.
        """
        return self._client

    async def stop(self) -> None:
        """End ``run``, wait for its end, and close the client."""
        if self._end is not None:
            if not self._end.done():
                self._end.set_result(None)
            await self._ended.wait()
        await self._client.close()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and self._end and not self._end.done():
            self._end.set_exception(error)

    async def _serve(self, broker: FetchedBroker) -> None:
        """Fetch from one broker: one request at a time, while its session wants a partition."""
        failures = 0
        while True:
            while broker.session.idle:
                broker.wake.clear()
                await broker.wake.wait()
            if broker.stale:
                broker.lose()
            content = broker.session.request()
            broker.marks.sent(content, broker.session.contains)
            call = FetchByIdCall(FetchCall(content, self._max_wait_ms, self._max_bytes, self._rack), self._ids)
            try:
                answer = call.read(await self._client.send(broker.node, call, group=CONNECTION))
            except KafkaError as error:
                if isinstance(error, IncompatibleBrokerVersion):
                    raise
                log.warning("cannot fetch from node %s, trying again: %r", broker.node, error)
                self._disconnected(broker)
                await asyncio.sleep(retry_wait(self._retry_after, failures))
                failures = min(failures + 1, 10)
                continue
            failures = 0
            if broker.stale:
                continue
            if broker.session.answered(answer.error, answer.session_id):
                self._note_marks(broker, answer)
                for part in answer.partitions:
                    self._take(broker, part)
                self._resize()
                # Even 0 lets the tasks run that the chunks have woken, so that the next request has what they resume.
                await asyncio.sleep(max(answer.throttle_ms / 1000, pause_after(answer)))
                await wait_for_room(self._full)
            else:
                broker.marks.lost()
                log.info("node %s ended the fetch session (Kafka's error code %s)", broker.node, answer.error)
                await asyncio.sleep(self._retry_after)

    def _note_marks(self, broker: FetchedBroker, answer: FetchAnswer) -> None:
        if answer.throttle_ms and not answer.partitions:
            broker.marks.lost()  # the broker has not looked at any partition
            return
        for part in answer.partitions:
            highwater = None if part.error else part.highwater
            broker.marks.told(part[:2], highwater)
            position = self._positions.get(TopicPartition(part.topic, part.partition))
            if highwater is not None and position is not None and position.known.highwater is not None:
                position.known.highwater = highwater
        broker.marks.answered()

    def _take(self, broker: FetchedBroker, part: PartitionAnswer) -> None:
        """Use one partition of an answer."""
        tp = TopicPartition(part.topic, part.partition)
        position = self._positions.get(tp)
        if position is None or position.node != broker.node:
            return  # forgotten, paused or moved while the request was in flight
        if broker.session.sent(tp) != position.offset:
            return  # read from elsewhere meanwhile
        if part.error:
            self._troubled(position, part.error)
            return
        position.unknown, position.doubted = 0, False
        self._leaderless.pop(tp, None)
        if part.preferred not in (-1, broker.node):
            position.preferred = part.preferred
            self._place(position)
        elif part.records:
            chunk = Chunk(tp, position.offset, part.records, part.aborted)
            position.offset, position.failed = chunk.end, chunk.broken
            self._place(position)
            if self._batch_sizes.seen(tp.topic, chunk.first_batch, position.max_bytes):
                self._resized.add(tp.topic)
            self._deliver(chunk)

    # --- where to fetch ---

    def _place(self, position: FetchPosition) -> None:
        """Put a partition into the session of the broker to fetch it from, and out of any other."""
        fetched = not (position.paused or position.failed)
        node = self._node(position) if fetched else None
        if position.node is not None and position.node != node:
            self._brokers[position.node].session.drop(position.tp)
        position.node = node
        if node is not None:
            self._astray.discard(position)
            broker = self._brokers.get(node) or self._add(node)
            most = self._batch_sizes.limit(position.tp.topic, position.max_bytes)
            broker.session.want(position.tp, position.offset, most)
            broker.marks.want(position.tp, position.known)
            broker.wake.set()
        elif fetched:
            self._look_for(position)
        else:
            self._astray.discard(position)
            self._leaderless.pop(position.tp, None)

    def _look_for(self, position: FetchPosition) -> None:
        """Find out who leads a partition."""
        self._astray.add(position)
        self._leaderless.setdefault(position.tp, asyncio.get_running_loop().time())
        self._metadata_wanted.set()

    def _resize(self) -> None:
        for position in self._positions.values() if self._resized else ():
            if position.tp.topic in self._resized and position.node is not None:
                self._place(position)
        self._resized.clear()

    def _node(self, position: FetchPosition) -> int | None:
        if position.preferred is not None:
            return position.preferred
        leader: int | None = self._client.cluster.leader_for_partition(position.tp)
        if leader is None:
            self._client.add_topic(position.tp.topic)
        return None if leader == -1 else leader

    def _add(self, node: int) -> FetchedBroker:
        broker = self._brokers[node] = FetchedBroker(node)
        if self._end is not None:
            self._start(self._serve(broker))
        return broker

    async def _find_leaders(self) -> None:
        """Read the metadata again while a partition has no known leader. ``_rearrange`` then places them."""
        while True:
            await self._metadata_wanted.wait()
            self._metadata_wanted.clear()
            if await self._client.force_metadata_update():
                for position in list(self._astray):
                    if self._client.cluster.leader_for_partition(position.tp) is None:
                        self._unknown(position)
            if self._astray:
                self._metadata_wanted.set()
            await asyncio.sleep(self._retry_after)

    def _rearrange(self, _cluster: object) -> None:
        """Follow the leaders in new metadata. A preferred replica is asked for again, as it may have fallen behind."""
        leader_of = self._client.cluster.leader_for_partition
        for position in self._positions.values():
            if position.node is None:
                if position in self._astray:
                    self._place(position)
                continue
            leader = leader_of(position.tp)
            if leader is None:  # metadata of other topics only: if the topic is gone, its broker says so
                self._client.add_topic(position.tp.topic)
                continue
            position.preferred = None
            if leader != position.node:
                # Another broker is asked afresh. Those above keep the doubt for which they were asked again.
                position.doubted = False
                self._place(position)

    def _disconnected(self, broker: FetchedBroker) -> None:
        """Start a new session, and fetch from the leader what this node was only the preferred replica of."""
        broker.lose()
        for partition in broker.session.wanted():
            position = self._positions[TopicPartition(*partition)]
            if position.preferred is not None:
                position.preferred = None
                self._place(position)
        self._client.force_metadata_update()

    # --- what fails ---

    def _troubled(self, position: FetchPosition, code: int) -> None:
        """A broker refused one partition: try it again after new metadata, or give it up."""
        if code == OFFSET_OUT_OF_RANGE and not position.doubted:
            # Since version 11 a follower answers too, and a former leader may lack the newest offsets.
            position.doubted = True
        elif code not in PASSING:
            self._give_up(position, code)
            return
        if code in UNKNOWN_TRIES and self._unknown(position, code):
            return
        assert position.node is not None
        self._brokers[position.node].session.drop(position.tp)
        position.node = position.preferred = None
        self._look_for(position)

    def _unknown(self, position: FetchPosition, code: int = UNKNOWN_TOPIC_OR_PARTITION) -> bool:
        """Count that it, or its id, was unknown. Returns True when it is given up, at once if it may not be seen."""
        if position.tp.topic in self._client.cluster.unauthorized_topics:
            self._give_up(position, TOPIC_AUTHORIZATION_FAILED)
            return True
        position.unknown += 1
        if position.unknown < UNKNOWN_TRIES[code]:
            return False
        self._give_up(position, code)
        return True

    def _give_up(self, position: FetchPosition, code: int) -> None:
        position.failed = True
        self._place(position)
        self._failed(position.tp, partition_error(code, position.tp, position.offset))
