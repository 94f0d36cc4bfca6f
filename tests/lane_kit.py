"""A lane over partitions that are lists, with the real inbox and committer, and a producer that only remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from aiokafka import TopicPartition

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.letter_id import LetterId
from failsoft.topics.names import Names
from failsoft.workers.kafka.letter_search import FoundLetter
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.lanes.committer import Committer, Outputs
from failsoft.workers.lanes.deps import Deps, NoSchemas
from failsoft.workers.lanes.exclusive import ExclusiveLock
from failsoft.workers.lanes.inbox import Inbox
from failsoft.workers.lanes.lane import Lane
from failsoft.workers.lanes.records_in_flight import RecordsInFlight
from failsoft.workers.scoring.plan import Plan
from tests.kafka import eventually
from tests.kit import INPUT, NOW_MS, REPLAY, RUNGS, FakeBoard, fine, plan

LIVE, RUNG, NEXT, AGAIN = (TopicPartition(topic, 0) for topic in (INPUT, *RUNGS, REPLAY))
NAMES = Names("loans")
TPS = [LIVE, AGAIN, RUNG, NEXT]

BOUND = 10_000_000
"""Bytes of an inbox: more than any test has."""


class ListChunk:
    """All of a partition from one offset on; None in the list is a transaction marker."""

    def __init__(self, tp: TopicPartition, begin: int, items: list[Any]) -> None:
        self.tp, self.position, self.end, self.size = tp, begin, begin + len(items), 100 * len(items)
        self._left = list(items)
        self._skip_markers()

    def _skip_markers(self) -> None:
        while self._left and self._left[0] is None:
            self._left.pop(0)
            self.position += 1

    @property
    def exhausted(self) -> bool:
        return not self._left

    def take(self, limit: int | None) -> list[Any]:
        found: list[Any] = []
        while self._left and (limit is None or len(found) < limit):
            found.append(self._left.pop(0))
            self.position += 1
            self._skip_markers()
        return found


class ListFetcher(dict[TopicPartition, list[Any]]):
    """A fetcher over partitions that are lists. A record or marker counts as 100 bytes.

    Attributes:
        inbox: where the chunks go.
        paused: the partitions that the inbox has paused.
        ends: end offsets that the broker reports; where there is none, the length of the list. None: not known.
    """

    def __init__(self, given: Mapping[TopicPartition, list[Any]] | None = None) -> None:
        super().__init__({tp: (given or {}).get(tp, []) for tp in TPS})
        self.inbox: Inbox | None = None
        self.paused: set[TopicPartition] = set()
        self.ends: dict[TopicPartition, int | None] = {}
        self._at: dict[TopicPartition, int] = {}

    def read(self, tp: TopicPartition, offset: int, max_bytes: int) -> None:
        self._at[tp] = offset
        self.resume(tp)

    def pause(self, tp: TopicPartition) -> None:
        self.paused.add(tp)

    def resume(self, tp: TopicPartition) -> None:
        self.paused.discard(tp)
        self.fetch(tp)

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        for tp in tps:
            self._at.pop(tp, None)

    def highwater(self, tp: TopicPartition) -> int | None:
        return self.ends.get(tp, len(self[tp]))

    def fetch(self, tp: TopicPartition) -> None:
        """Deliver what ``tp`` has now, unless it is paused."""
        at = self._at.get(tp)
        if at is None or tp in self.paused or at >= len(self[tp]):
            return
        assert self.inbox is not None
        self._at[tp] = len(self[tp])
        self.inbox.offer(ListChunk(tp, at, self[tp][at:]))


class Ledger:
    """A producer that keeps the committed offsets and their metadata. ``offsets`` are those of batches, ``notes`` those
    of all commits, also of crash markers.
    """

    def __init__(self) -> None:
        self.offsets: list[dict[TopicPartition, int]] = []
        self.notes: list[dict[TopicPartition, tuple[int, str]]] = []
        self.wrote: list[str] = []  # the topic of each output
        self.trouble = ""

    async def commit(
        self, outputs: Outputs, offsets: Mapping[TopicPartition, tuple[int, str]], member: GroupMember
    ) -> None:
        self.wrote += [tp.topic for tp, _ in outputs]
        self.notes.append(dict(offsets))
        if not any("among" in metadata or "alone" in metadata for _, metadata in offsets.values()):
            self.offsets.append({tp: at for tp, (at, _) in offsets.items()})


class KnownLetters:
    """The dead letters that a lane can find.

    Attributes:
        letters: each letter's identity, by its headers.
        done: the letters that were replayed.
        searches: how often the dead topic was searched.
    """

    def __init__(self) -> None:
        self.letters: dict[Attempt, LetterId] = {}
        self.done: set[LetterId] = set()
        self.searches = 0

    async def find(self, claims: Mapping[int, Attempt]) -> dict[int, FoundLetter]:
        self.searches += 1
        ids = {row: self.letters[claim] for row, claim in claims.items() if claim in self.letters}
        return {row: FoundLetter(letter, letter in self.done) for row, letter in ids.items()}

    def replayed(self, letter: LetterId, now_ms: int) -> None:
        self.done.add(letter)


class LaneUnderTest:
    """One lane with all that it needs. ``stored`` has the group's committed offsets and their metadata.

    Attributes:
        lane: the lane.
        deps: what it would share with other lanes; attributes may be replaced.
        fetcher: its partitions.
        ledger: what it commits.
        sizes: the number of records of each batch that it took.
    """

    def __init__(
        self,
        given: Mapping[TopicPartition, list[Any]] | None = None,
        stored: Mapping[TopicPartition, tuple[int, str | None]] | None = None,
        ledger: Any = None,
        the_plan: Plan | None = None,
    ) -> None:
        self.fetcher = ListFetcher(given)
        self.ledger = ledger or Ledger()
        self.stored = stored or {}
        self.now = 0.0
        self.sizes: list[int] = []
        self.letters = KnownLetters()
        registry = FakeBoard()

        async def run(call: Any, lane: int) -> Any:
            return fine(call)

        async def make_known(_: int) -> None:
            return None

        self.deps = SimpleNamespace(
            names=NAMES,
            plan=the_plan or plan(),
            registry=SimpleNamespace(
                serving=registry.serving,
                admit=registry.admit,
                report=registry.report,
                may_retry=lambda model: True,
                request_probes=lambda model: None,
            ),
            calls=SimpleNamespace(run=run),
            reporter=SimpleNamespace(idle=lambda: None, committed=lambda *_: None),
            make_known=make_known,
            make_letters=lambda: self.letters,
            on_result=lambda call, result: None,
            exactly_once=True,
            wall=lambda: NOW_MS / 1000 + self.now,
            latest=lambda: NOW_MS / 1000 + self.now,
            clock=lambda: self.now,
            draws=lambda n: np.full(n, 0.5),
            exclusive=ExclusiveLock(),
            in_flight=RecordsInFlight(),
            schemas=NoSchemas(),
            answer_schema=None,
        )
        self.committer = Committer(self.ledger, True, lambda: self.now, lambda: self.now, lambda seconds: None)
        self.committer.member = GroupMember("loans", 1, "m", "w")
        inbox = Inbox(self.fetcher, dict.fromkeys(TPS, BOUND), lambda: self.now)
        self.fetcher.inbox = inbox
        self.lane = Lane(0, TPS, inbox, self.committer, self._start, cast(Deps, self.deps))
        process = self.lane._process

        async def counted(taken: Mapping[TopicPartition, list[Any]]) -> None:
            self.sizes.append(sum(map(len, taken.values())))
            await process(taken)

        cast(Any, self.lane)._process = counted

    async def _start(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, str | None]]:
        return {tp: self.stored.get(tp, (0, "")) for tp in tps}

    def open(self) -> None:
        """Open the lane's partitions at their beginning, without running it."""
        for tp in TPS:
            self.lane._committed[tp] = self.lane._handed[tp] = 0
            self.lane._schedule.opened(tp, 0)
            self.lane.inbox.seek(tp, 0)

    async def run(self, until: Any, what: str = "the lane's progress") -> None:
        """Run the lane until ``until`` is true, then close it. Raises what the lane or the committer raised."""
        running, committing = asyncio.create_task(self.lane.run()), asyncio.create_task(self.committer.run())
        try:
            await eventually(lambda: until() or running.done() or committing.done(), 10, what)
            self.lane.close()
            if committing.done():
                committing.result()
            await running
        finally:
            committing.cancel()
            running.cancel()
