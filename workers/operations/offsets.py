"""Reads where a pipeline's partitions stand, and moves committed offsets on an operator's order.

An order commits the offset and the alert that is its history in one transaction, without a generation of the group: so
it works while workers run, whose stopped lanes read the new offset when they try again. It is sure only for a partition
that no lane reads: one whose lane is stopped, or that no member of the group has.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from aiokafka import TopicPartition

from failsoft.schemas.fleet.breaker import Alert
from failsoft.schemas.wire import Malformed
from failsoft.topics import admin
from failsoft.topics.rights import Grantee, NotAuthorised, Use
from failsoft.workers.kafka import access, operator_clients, topic_reader
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.log_view import LogView
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.produce_batches import BATCH_BYTES, compressed_batch, new_batch, pack
from failsoft.workers.kafka.unreadable import Unreadable
from failsoft.workers.lanes import offset_note
from failsoft.workers.lanes.survey import Survey
from failsoft.workers.operations.offset_view import LOST, MOVED, OffsetMove, OffsetRow, OrderRefused, UnreadableBatch
from failsoft.workers.settings import Settings

STABLE_WITHIN = 10.0
"""Seconds for offsets that open transactions may still change. A worker's last for some milliseconds."""

AWAY_WITHIN = 15.0
"""Seconds to wait for the members of the group to be gone. A worker that was stopped is a static member, which the
group keeps for its session (6 s by default): at least two and a half of it."""

AGAIN_AFTER = 0.05
AT_ONCE = 8  # partitions whose next batch is read at the same time


@dataclass(frozen=True, slots=True)
class OffsetDesk:
    """What an order needs.

    Attributes:
        pipeline: the pipeline's settings.
        logs: asks the brokers.
        partitions: the number of partitions of each topic that workers read.
    """

    pipeline: Settings
    logs: LogView
    partitions: Mapping[str, int]

    @property
    def ladder(self) -> frozenset[str]:
        """The topics that are the pipeline's own: its rungs and the replay topic."""
        return frozenset(self.partitions) - frozenset(self.pipeline.input.topics)

    async def look(self) -> list[OffsetRow]:
        """Every partition that workers read, by topic and number."""
        p = self.pipeline
        rungs = [p.names.retry(delay) for delay in p.retry.delays]
        survey = Survey(self.logs, p.names, rungs, p.guarantee == "exactly_once")
        count = max(self.partitions.values())
        lanes = {i: [TopicPartition(t, i) for t, n in self.partitions.items() if i < n] for i in range(count)}
        every = [tp for tps in lanes.values() for tp in tps]
        # Answers first, then offsets, then the logs' ends: a lane that runs meanwhile is never behind its answers.
        looked = await survey.look(lanes, {}, await self.logs.ids(self.partitions))
        committed = await self._committed(every)
        bounds = (await self.logs.bounds(every, read_committed=False)).found
        gate = asyncio.Semaphore(AT_ONCE)

        async def row(tp: TopicPartition) -> OffsetRow:
            lane = looked.lanes.get(tp.partition)
            if lane is None or tp not in bounds:
                refused = looked.refused.get(tp.partition)
                why = f"cannot be told: {refused or 'a partition of its lane has no leader'}"
                return OffsetRow(tp.topic, tp.partition, None, unknown=why)
            standing = lane.standings[tp].at(committed.get(tp), bounds[tp])
            unreadable = None
            if not standing.state.is_wrong and standing.lag:
                async with gate:
                    unreadable = await self._unreadable(tp, standing.next)
            return OffsetRow(tp.topic, tp.partition, standing, unreadable)

        return list(await asyncio.gather(*map(row, sorted(every))))

    async def _committed(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """The committed offsets, when no open transaction can change them any more; those before it if one lasts."""
        found: dict[TopicPartition, tuple[int, str]] = {}
        left, deadline = set(tps), time.monotonic() + STABLE_WITHIN
        while left:
            wait = time.monotonic() < deadline
            stable, unstable = await self.logs.committed(self.pipeline.names.group, left, require_stable=wait)
            ids = await self.logs.ids({tp.topic for tp in left})
            found |= offset_note.of_present_topics(stable, {tp: ids.get(tp.topic) for tp in left})[0]
            left = set(unstable)
            if left:
                await asyncio.sleep(AGAIN_AFTER)
        return found

    async def _unreadable(self, tp: TopicPartition, offset: int) -> UnreadableBatch | None:
        """The batch at ``offset``, if it cannot be read."""
        part = await self.logs.batch_at(tp, offset)
        if part is None or part.error or not part.records:
            return None
        try:
            Chunk(tp, offset, part.records, part.aborted).take(1)
        except Unreadable as error:
            end = error.next_offset or _batch_end(part.records, error.offset)
            return UnreadableBatch(error.offset, end, error.why)
        return None

    async def offsets_of(self, rows: Sequence[OffsetRow], when: str | int) -> list[int]:
        """Of each partition the first offset ("earliest"), the end ("latest"), or the offset of the first record at or
        after a time (epoch milliseconds).
        """
        tps = [TopicPartition(row.topic, row.partition) for row in rows]
        ends = await self.logs.offsets(tps, "latest")
        if when == "latest":
            return [ends[tp] for tp in tps]
        found = await self.logs.offsets(tps, when if isinstance(when, int) else "earliest")
        return [found[tp] if found[tp] >= 0 else ends[tp] for tp in tps]

    async def wait_until_unread(self, rows: Sequence[OffsetRow]) -> None:
        """Return when no lane reads the partitions: they are in trouble, or no member of the group has them.

        Raises OrderRefused after AWAY_WITHIN seconds, or later for a longer session.
        """
        left = [row for row in rows if not row.is_wrong]
        deadline = time.monotonic() + max(AWAY_WITHIN, 2.5 * self.pipeline.kafka.timeouts.session)
        async with admin.connect(self.pipeline.connection()) as client:
            for row in left:
                ask = partial(admin.assigned, client, self.pipeline.names.group, row.topic, row.partition)
                while (member := await ask()) is not None:
                    if time.monotonic() > deadline:
                        raise OrderRefused(
                            f"{row.place}: the worker {member} reads it: stop the pipeline's workers first"
                        )
                    await asyncio.sleep(10 * AGAIN_AFTER)

    async def commit(self, moves: Sequence[OffsetMove], alerts: Sequence[Alert]) -> None:
        """Commit ``moves`` and write ``alerts``, all or nothing.

        Raises OrderRefused if an offset has moved since it was looked at.
        """
        names = self.pipeline.names
        ids = await self.logs.ids({m.row.topic for m in moves})
        noted = [(m.row, m.to, offset_note.join(m.metadata, ids.get(m.row.topic))) for m in moves]
        offsets = {TopicPartition(row.topic, row.partition): (to, metadata) for row, to, metadata in noted}
        producer = await operator_clients.producer(self.pipeline)
        try:
            await producer.start()
            now = await self._committed(list(offsets))
            for move in moves:
                was = move.row.standing.committed if move.row.standing is not None else None
                at = now.get(TopicPartition(move.row.topic, move.row.partition))
                if (at[0] if at is not None else None) != was:
                    raise OrderRefused(f"{move.row.place}: its offset moves ({was}, now {at}): a worker reads it")
            told = [(alert.key.encode(), alert.to_bytes(), list[tuple[str, bytes | None]]()) for alert in alerts]
            make, squeeze = partial(new_batch, True), partial(compressed_batch, BATCH_BYTES, True)
            batches = pack(make, told, int(time.time() * 1000), squeeze)
            nobody = GroupMember(names.group, -1, "", None)
            await producer.commit([(TopicPartition(names.alerts, 0), batches)], offsets, nobody)
        finally:
            await producer.stop()


@asynccontextmanager
async def desk(pipeline: Settings, use: Use) -> AsyncIterator[OffsetDesk]:
    """Connects. Raises KafkaUnreachable, NoSuchTopic for a topic of the pipeline that does not exist, or NotAuthorised
    for rights that ``use`` needs and that are missing.
    """
    names = pipeline.names
    read = [*pipeline.input.topics, *(names.retry(delay) for delay in pipeline.retry.delays), names.replay]
    async with admin.connect(pipeline.connection()) as client:
        described = {d["topic"]: d for d in await client.describe_topics([*read, names.scored, names.dead])}
    if missing := await access.lacking(pipeline, access.needed(pipeline, use)):
        raise NotAuthorised(missing, Grantee.of(pipeline.connection()))
    for topic, found in described.items():
        if found["error_code"] or not found["partitions"]:
            raise topic_reader.NoSuchTopic(f"{topic}: no such topic; see: failsoft topics show")
    logs = await operator_clients.view(pipeline, list(described))
    try:
        yield OffsetDesk(pipeline, logs, {topic: len(described[topic]["partitions"]) for topic in read})
    finally:
        await logs.close()


async def told(pipeline: Settings) -> list[Alert]:
    """The alerts of orders that moved offsets, and of records that were lost."""
    found: list[Alert] = []
    async with topic_reader.reader(pipeline, pipeline.names.alerts) as reader:
        bounds = await reader.bounds()
        async with aclosing(reader.until(bounds)) as batches:
            async for records in batches:
                for record in records:
                    try:
                        alert = Alert.parse(record.value)
                    except Malformed:
                        continue  # another program wrote it
                    if alert.name in (LOST, MOVED):
                        found.append(alert)
    return found


def new_id() -> str:
    """A new rewind's id; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _batch_end(raw: bytes, offset: int) -> int | None:
    """The offset after the batch with ``offset``, from the headers of the batches; None if they cannot be right."""
    at = 0
    while len(raw) - at >= 61:  # the size of a batch's header
        base = int.from_bytes(raw[at : at + 8], "big", signed=True)
        length = int.from_bytes(raw[at + 8 : at + 12], "big", signed=True)
        end = base + int.from_bytes(raw[at + 23 : at + 27], "big", signed=True) + 1
        if length < 49 or end <= base:
            return None
        if end > offset:
            return end if base <= offset else None
        at += 12 + length
    return None
