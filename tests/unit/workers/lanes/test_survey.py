"""What is asked to find out where lanes stand, and which outputs are their memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

from aiokafka import TopicPartition

from failsoft.schemas import positions
from failsoft.topics.names import Names
from failsoft.workers.kafka.chunk import FetchedRecord
from failsoft.workers.kafka.log_tail import Answered, Bounds
from failsoft.workers.lanes.standing import State
from failsoft.workers.lanes.survey import Survey
from tests.kit import attempt

NAMES = Names("loans")
OLD, NEW = "o" * 22, "n" * 22


class Logs:
    """Brokers whose partitions have ``records``."""

    def __init__(self, records: Mapping[str, Sequence[FetchedRecord]]) -> None:
        self.records = records

    async def ids(self, topics: Collection[str]) -> Mapping[str, str | None]:
        return dict.fromkeys(topics, NEW)

    async def bounds(self, tps: Collection[TopicPartition], *, read_committed: bool) -> Answered[Bounds]:
        return Answered({tp: (0, len(self.records.get(tp.topic, ()))) for tp in tps})

    async def last_records(self, bounds: Mapping[TopicPartition, Bounds], digest: Callable[..., Any]) -> Answered[Any]:
        return Answered({tp: digest(self.records.get(tp.topic, ())) for tp in bounds})


def _record(topic: str, headers: Sequence[positions.Header]) -> FetchedRecord:
    return FetchedRecord(topic, 0, 0, 0, b"k", b"{}", list(headers))


async def test_a_replayed_letter_does_not_stop_the_lane_of_a_topic_made_anew() -> None:
    """A replay names its event's topic without the id. It is of the former topic, of which the answers say enough."""
    letter = attempt(due_ms=None, next_revision=2)
    logs = Logs(
        {
            letter.origin.topic: [_record("in", ())] * 3,
            NAMES.scored: [_record(NAMES.scored, [positions.header({f"{letter.origin.topic}:{OLD}": 200})])],
            NAMES.replay: [_record(NAMES.replay, letter.headers())],
        }
    )
    tp = TopicPartition(letter.origin.topic, 0)
    looked = await Survey(cast(Any, logs), NAMES, ["loans.retry.5s"], True).look({0: [tp]}, {})
    assert looked.lanes[0].standings[tp].state is State.NEW and looked.lanes[0].trouble() is None
