"""What is asked to find out where lanes stand, and which outputs are their memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from failsoft.schemas import positions
from failsoft.topics.names import Names
from failsoft.workers.kafka.chunk import FetchedRecord
from failsoft.workers.kafka.log_tail import Answered, Bounds
from failsoft.workers.kafka.unreadable import Unreadable
from failsoft.workers.lanes.standing import State
from failsoft.workers.lanes.survey import Survey
from tests.kit import attempt

NAMES = Names("loans")
IN = TopicPartition("in", 0)
OLD, NEW = "o" * 22, "n" * 22


class Logs:
    """Brokers whose partitions have ``records``."""

    def __init__(self, records: Mapping[str, Sequence[FetchedRecord]], damaged: Collection[str] = ()) -> None:
        self.records, self.damaged = records, damaged

    async def bounds(self, tps: Collection[TopicPartition], *, read_committed: bool) -> Answered[Bounds]:
        return Answered({tp: (0, len(self.records.get(tp.topic, ()))) for tp in tps})

    async def last_records(self, bounds: Mapping[TopicPartition, Bounds], digest: Callable[..., Any]) -> Answered[Any]:
        answered = Answered[Any]({tp: digest(self.records.get(tp.topic, ())) for tp in bounds if not self._is_bad(tp)})
        answered.refused = {tp: Unreadable(tp, 0, "its checksum is wrong") for tp in bounds if self._is_bad(tp)}
        return answered

    def _is_bad(self, tp: TopicPartition) -> bool:
        return tp.topic in self.damaged


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
    looked = await Survey(cast(Any, logs), NAMES, ["loans.retry.5s"], True).look({0: [tp]}, {}, {tp.topic: NEW})
    assert looked.lanes[0].standings[tp].state is State.NEW and looked.lanes[0].trouble() is None


@pytest.mark.parametrize(("committed", "state"), [({IN: (2, "")}, State.OK), ({}, State.MISSING)])
async def test_answers_that_cannot_be_read_are_no_memory(committed: Mapping[Any, Any], state: State) -> None:
    """``offsets skip`` knows inputs only, so the lane would never open again. One without an offset does not guess."""
    logs = Logs({IN.topic: [_record("in", ())] * 3, NAMES.scored: [_record(NAMES.scored, ())]}, {NAMES.scored})
    looked = await Survey(cast(Any, logs), NAMES, [], True).look({0: [IN]}, committed, {})
    assert not looked.refused and looked.lanes[0].standings[IN].state is state
