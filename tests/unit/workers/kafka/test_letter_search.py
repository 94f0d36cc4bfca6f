"""Letters are found by their headers, near the time that they name, and so are their replays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndTimestamp
from structlog.testing import capture_logs

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.letter_id import LetterId
from failsoft.topics.names import Names
from failsoft.workers.kafka import letter_search
from failsoft.workers.kafka.letter_search import FoundLetter, LetterSearch
from failsoft.workers.kafka.unreadable import Unreadable
from tests.kit import NOW_MS, Rec, attempt

NAMES = Names("loans")
DEAD, REPLAY = TopicPartition(NAMES.dead, 0), TopicPartition(NAMES.replay, 0)
ID = "AAAAAAAAAAAAAAAAAAAAAQ"
"""The topic id of 15 zero bytes and a 1."""


def _died(n: int, died_ms: int | None = NOW_MS) -> Attempt:
    """The n-th letter's attempt."""
    return attempt(origin=replace(attempt().origin, offset=n), due_ms=None, next_revision=2, died_ms=died_ms)


class Logs:
    """Two partitions as a consumer reads them. ``read`` has the (partition, offset) of each record that was fetched."""

    def __init__(self, letters: Iterable[Attempt], replays: Iterable[tuple[int, Attempt]] = ()) -> None:
        self.logs: dict[TopicPartition, list[Rec]] = {DEAD: [], REPLAY: []}
        for each in letters:
            written = each.first_failed_ms if each.died_ms is None else each.died_ms
            self.add(DEAD, written + 5, each.dead_headers("loans"))
        for at, each in replays:
            self.add(REPLAY, at, each.headers())
        self.read: list[tuple[TopicPartition, int]] = []
        self.fails: Exception | None = None
        self.started = self.stopped = 0
        self._at: dict[TopicPartition, int] = {}
        self._client = SimpleNamespace(
            get_random_node=lambda: 1,
            send=self._metadata,
            set_topics=self._set_topics,
            cluster=SimpleNamespace(partitions_for_topic=lambda topic: {0}),
        )

    def add(self, tp: TopicPartition, at: int, headers: Any) -> None:
        log = self.logs[tp]
        log.append(Rec(tp.topic, tp.partition, len(log), at, b"k", b"{}", headers))

    async def _metadata(self, node: int, request: Any) -> Any:
        return SimpleNamespace(topics=[(0, topic, 0, 1) for _, _, topic, _ in request.struct.topics])

    async def _set_topics(self, topics: Any) -> None:
        pass

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    def assign(self, tps: list[TopicPartition]) -> None:
        self._at = dict.fromkeys(tps, 0)

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: len(self.logs[tp]) for tp in tps}

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, Any]:
        ((tp, ms),) = times.items()
        found = next((r for r in self.logs[tp] if r.timestamp >= ms), None)
        return {tp: None if found is None else OffsetAndTimestamp(found.offset, found.timestamp)}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._at[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self._at[tp]

    async def getmany(self, tp: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Rec]]:
        if self.fails is not None:
            raise self.fails
        records = self.logs[tp][self._at[tp] :][:max_records]
        self._at[tp] += len(records)
        self.read += [(tp, r.offset) for r in records]
        return {tp: records}


def _search(logs: Logs) -> LetterSearch:
    return LetterSearch(lambda: logs, NAMES)


def _id(offset: int) -> LetterId:
    return LetterId(ID, 0, offset)


async def test_letters_are_found_by_exactly_their_headers() -> None:
    """Each by its row; one whose headers differ in anything, or that is on no partition, is not there."""
    logs = Logs([_died(n) for n in range(5)])
    forged = replace(_died(2), next_revision=9)
    elsewhere = replace(_died(2), origin=replace(_died(2).origin, partition=7))
    found = await _search(logs).find({1: _died(3), 4: forged, 5: elsewhere, 6: _died(3), 7: _died(0)})
    assert found == {1: FoundLetter(_id(3), False), 6: FoundLetter(_id(3), False), 7: FoundLetter(_id(0), False)}
    assert logs.started == logs.stopped == 1


async def test_only_the_neighbours_of_a_letter_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter names its time. Letters far apart are looked for one by one, and one that is missing ends soon."""
    monkeypatch.setattr(letter_search, "AT_ONCE", 10)
    hour = 3_600_000
    logs = Logs(_died(n, NOW_MS + n * hour // 10) for n in range(1000))
    found = await _search(logs).find({0: _died(100, NOW_MS + 10 * hour), 1: _died(900, NOW_MS + 90 * hour)})
    assert {row: letter.id.offset for row, letter in found.items()} == {0: 100, 1: 900}
    assert len(logs.read) <= 20
    logs.read.clear()
    assert await _search(logs).find({0: replace(_died(5, NOW_MS + hour // 2), next_revision=9)}) == {}
    assert len(logs.read) <= 10


async def test_a_letter_of_an_earlier_version_is_found_from_its_first_failure_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It does not name its time; the search ends after MOST_READ letters."""
    logs = Logs(replace(_died(n, None), first_failed_ms=NOW_MS) for n in range(50))
    wanted = {0: replace(_died(40, None), first_failed_ms=NOW_MS)}
    assert await _search(logs).find(wanted) == {0: FoundLetter(_id(40), False)}
    monkeypatch.setattr(letter_search, "MOST_READ", 40)
    assert await _search(logs).find(wanted) == {}


async def test_replays_are_known_and_read_once() -> None:
    """Those in the topic, by whichever tool; and those that the lane writes itself, before they can be read."""
    logs = Logs([_died(n) for n in range(4)], [(NOW_MS + 50, _died(1).replayed(_id(1), "r"))])
    search = _search(logs)
    assert [f.replayed for f in (await search.find({n: _died(n) for n in range(3)})).values()] == [False, True, False]
    search.replayed(_id(2), NOW_MS)
    logs.add(REPLAY, NOW_MS + 60, _died(0).replayed(_id(0), "r").headers())
    assert [f.replayed for f in (await search.find({n: _died(n) for n in range(4)})).values()] == [True] * 3 + [False]
    assert [offset for tp, offset in logs.read if tp == REPLAY] == [0, 1]


async def test_earlier_replays_are_read_when_an_older_letter_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first search began at the time of its letter. A memory that has grown too large is read anew."""
    monkeypatch.setattr(letter_search, "AT_ONCE", 1)
    old, new = _died(0, NOW_MS - 100_000), _died(1)
    replays = [(NOW_MS - 90_000, old.replayed(_id(0), "r")), (NOW_MS + 50, new.replayed(_id(1), "r"))]
    logs = Logs([old, new], replays)
    search = _search(logs)
    for wanted in (new, old):
        assert [f.replayed for f in (await search.find({0: wanted})).values()] == [True]
    assert [offset for tp, offset in logs.read if tp == REPLAY] == [1, 0]
    monkeypatch.setattr(letter_search, "MOST_REMEMBERED", 1)
    assert (await search.find({0: old}))[0].replayed
    assert [offset for tp, offset in logs.read if tp == REPLAY] == [1, 0, 0, 1]


async def test_without_the_right_to_read_no_letter_is_found() -> None:
    """Anyone who writes to an input topic could stop the worker otherwise; the log names the right. Other errors are
    raised: to answer an event anew because a broker is away would be wrong.
    """
    logs = Logs([_died(0)])
    logs.fails = TopicAuthorizationFailedError(NAMES.dead)
    with capture_logs() as said:
        assert await _search(logs).find({0: _died(0)}) == {}
    assert any("--operation Read --topic loans.dead" in str(line) for line in said)
    logs.fails = KafkaConnectionError("gone")
    with pytest.raises(KafkaConnectionError):
        await _search(logs).find({0: _died(0)})
    assert logs.started == logs.stopped == 2


async def test_a_batch_that_cannot_be_read_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command skips a batch of the dead topic, so a lane would be stopped for as long as the batch is kept."""
    logs = Logs([_died(n) for n in range(3)])
    read = logs.getmany

    async def getmany(tp: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Rec]]:
        if tp == DEAD and logs._at[tp] == 0:
            raise Unreadable(tp, 0, "its checksum is wrong", 1)
        return await read(tp, timeout_ms, max_records)

    monkeypatch.setattr(logs, "getmany", getmany)
    with capture_logs() as said:
        assert list(await _search(logs).find({0: _died(0), 2: _died(2)})) == [2]
    assert any("its checksum is wrong" in str(line) for line in said)


async def test_a_search_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that does not answer must not hold a lane for ever."""
    monkeypatch.setattr(letter_search, "WITHIN", 0.01)
    logs = Logs([_died(0)])
    logs.start = asyncio.Event().wait  # type: ignore[method-assign, assignment]
    with pytest.raises(KafkaTimeoutError, match=r"loans\.dead was not searched"):
        await _search(logs).find({0: _died(0)})
