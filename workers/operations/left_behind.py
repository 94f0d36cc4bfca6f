"""Topics that a pipeline's workers have read and that its file does not name any more: dropped rungs and inputs.

What still waits on them is answered by nobody, so it is counted, and said.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from aiokafka.errors import TopicAuthorizationFailedError

from failsoft.topics import admin
from failsoft.topics.layout import Topology
from failsoft.workers.kafka import topic_reader
from failsoft.workers.kafka.group_offsets import group_offsets
from failsoft.workers.settings import Settings

COUNTED = 200_000
"""Offsets up to which the records are counted by reading them, a few seconds. Offsets alone count too many: the markers
of transactions have some, two of three on a rung with little traffic."""


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A topic that was dropped from the pipeline file.

    Attributes:
        topic: its name.
        rung: whether it is a rung of the retry ladder; else it was an input.
        records: the records on it that the group has not read.
        counted: False if ``records`` are offsets, which count the markers of transactions too.
        is_read: whether a worker of an earlier topology still reads it.
    """

    topic: str
    rung: bool
    records: int
    counted: bool
    is_read: bool

    @property
    def problem(self) -> str | None:
        """What is wrong, and the way out; None if nothing is."""
        if self.is_read or not self.records:
            return None
        events = f"{self.records} events" if self.counted else f"up to {self.records} events"
        if self.rung:
            back = "put its delay back into [retry] delays until it is empty; their answers stay provisional until then"
        else:
            back = "put it back into [input] topics until it is read, or commit the group's offsets after them"
        return f"{events} wait on it, and no worker reads it: {back}"

    @property
    def note(self) -> str:
        """What to know of it where nothing is wrong."""
        if self.is_read:
            return f"{self.records} events wait on it, and a worker of the former topology reads it"
        if self.rung:
            return "this rung is empty and no worker reads it: it may be deleted"
        return "it was an input, and all of it is read"


async def left_behind(pipeline: Settings, topology: Topology) -> list[LeftBehind]:
    """What was dropped. Of a topic that may not be read, offsets are counted. Raises KafkaUnreachable, or aiokafka's
    errors, as without the right to see the group.
    """
    committed = await group_offsets(pipeline.connection(), pipeline.names.group)
    known = {topic.name for topic in topology.topics}
    async with admin.connect(pipeline.connection()) as client:
        there = set(await client.list_topics())
        read = await admin.read_topics(client, pipeline.names.group)
    inputs = {tp.topic for tp in committed if not pipeline.names.owns(tp.topic)} - known
    found = []
    for topic in sorted((inputs | set(topology.strays)) & there):
        async with topic_reader.reader(pipeline, topic) as reader:
            bounds = {
                tp: (max(first, committed.get(tp, first)), end) for tp, (first, end) in (await reader.bounds()).items()
            }
            offsets = sum(max(0, end - first) for first, end in bounds.values())
            counted = offsets <= COUNTED
            if offsets and counted:
                try:
                    async with aclosing(reader.until(bounds)) as batches:
                        offsets = sum([len(batch) async for batch in batches])
                except TopicAuthorizationFailedError:
                    counted = False
        found.append(LeftBehind(topic, topic in topology.strays, offsets, counted, topic in read))
    return found
