"""A lane whose input topic brings dead letters back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from failsoft.models.breaker.breaker import Admission
from failsoft.schemas.letter_id import LetterId
from failsoft.workers.lanes.redriven import RedrivenLetters
from failsoft.workers.lanes.trouble import OF_THE_CLUSTER, Cause, LaneTrouble
from tests.kit import INPUT, NOW_MS, REPLAY, Rec, attempt, body, events, waiting
from tests.lane_kit import LIVE, NAMES, RUNG, KnownLetters, LaneUnderTest, Ledger

DIED = attempt(due_ms=None, next_revision=2, died_ms=NOW_MS)
LETTER = LetterId("A" * 22, 2, 5)


def _back(offset: int) -> Rec:
    return Rec(INPUT, 0, offset, NOW_MS, b"k", body("e"), DIED.dead_headers("loans"))


class Places(Ledger):
    """A producer that remembers the partition and the number of records of each output."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[TopicPartition, int]] = []

    async def commit(self, outputs: Any, offsets: Mapping[TopicPartition, tuple[int, str]], member: Any) -> None:
        self.places += [(tp, sum(batch.record_count() for batch in batches)) for tp, batches in outputs]
        await super().commit(outputs, offsets, member)


def _lane(*records: Rec, known: bool = True) -> tuple[LaneUnderTest, Places]:
    ledger = Places()
    tested = LaneUnderTest({LIVE: list(records)}, ledger=ledger)
    tested.letters.letters = {DIED: LETTER} if known else {}
    return tested, ledger


async def test_a_letter_goes_to_the_replay_topic_on_its_own_partition() -> None:
    """It is not answered here; the events beside it are, and all offsets are committed in one transaction."""
    tested, ledger = _lane(*events(2), _back(2), *events(1, start=3))
    await tested.run(lambda: ledger.offsets)
    assert ledger.offsets == [{LIVE: 4}]
    assert ledger.places == [(TopicPartition("loans.scored", 0), 3), (TopicPartition(REPLAY, 2), 1)]


async def test_a_letter_that_comes_back_twice_is_replayed_once() -> None:
    """In one batch, and in a later one: the second is skipped, and its offset is committed."""
    tested, ledger = _lane(_back(0), _back(1))
    await tested.run(lambda: ledger.offsets)
    assert ledger.offsets == [{LIVE: 2}] and ledger.places == [(TopicPartition(REPLAY, 2), 1)]
    again, ledger = _lane(_back(0))
    again.letters.done = tested.letters.done
    await again.run(lambda: ledger.offsets)
    assert ledger.offsets == [{LIVE: 1}] and ledger.places == []


async def test_a_claim_that_no_letter_proves_is_an_event() -> None:
    """Anyone may write headers to an input topic: they suppress no first answer."""
    tested, ledger = _lane(_back(0), known=False)
    await tested.run(lambda: ledger.offsets)
    assert tested.letters.searches == 1 and ledger.places == [(TopicPartition("loans.scored", 0), 1)]


async def test_events_cost_no_search() -> None:
    """Nor do retries, which have headers of the same names."""
    tested, ledger = _lane(*events(3))
    tested.fetcher[RUNG] += [waiting()]
    await tested.run(lambda: ledger.offsets and RUNG in ledger.offsets[-1])
    assert tested.letters.searches == 0


async def test_letters_are_counted_by_what_becomes_of_them() -> None:
    """``redriven``, and ``repeated`` where the letter was replayed already."""
    known = KnownLetters()
    known.letters = {DIED: LETTER}
    lane = RedrivenLetters(NAMES, known, lambda: NOW_MS)
    first = await lane.divert([_back(0), *events(1), _back(2)])
    assert first.outcomes == {(INPUT, "redriven"): 1, (INPUT, "repeated"): 1} and first.kept == events(1)
    assert (await lane.divert([_back(3)])).outcomes == {(INPUT, "repeated"): 1}


async def test_letters_that_cannot_be_looked_up_stop_the_lane_alone() -> None:
    """A broker that is away is no reason to end the worker. Nothing ran, so no crash marker suspects the records."""
    tested, ledger = _lane(*events(1), _back(1))

    async def find(claims: Mapping[int, Any]) -> Any:
        raise KafkaTimeoutError("loans.dead was not searched within 20 s")

    tested.letters.find = find  # type: ignore[method-assign]
    with pytest.raises(LaneTrouble) as stopped:
        await tested.run(lambda: False)
    trouble = stopped.value
    assert (trouble.cause, trouble.tp, trouble.offset) == (Cause.LETTERS_UNREAD, LIVE, 1)
    assert "was not searched" in trouble.why and trouble.cause in OF_THE_CLUSTER and ledger.notes == []


async def test_letters_beside_held_retries_are_not_lost() -> None:
    """Where all other records of the batch are held, the batch commits for the letters' sake."""
    tested, ledger = _lane(_back(0))
    tested.fetcher[RUNG] += [waiting()]
    tested.deps.registry.admit = lambda key, n, ladder=0: Admission(0, 0)
    await tested.run(lambda: ledger.offsets)
    assert ledger.offsets[0][LIVE] == 1 and ledger.places == [(TopicPartition(REPLAY, 2), 1)]
