"""Pure: records that may have killed a worker or a model's process: who is tried alone, and when it is enough.

A model's process that dies leaves its worker alive, so the count travels with the record (``failsoft-crashes``). A
worker that dies leaves nothing but what is in Kafka: before it runs a batch it puts a mark beside the committed
offsets, and the next owner finds it. docs/decisions/0014-poison.md has the protocol and the attacks on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from failsoft.workers.lanes.batch_size import LARGEST
from failsoft.workers.scoring.poison import ENOUGH, PoisonRecord

CAREFUL = 64
"""Records a batch after one death. The square root of the largest batch, 4,000: as many batches as then records."""

WATCHED = LARGEST
"""Records of a topic, after a lane opens, that are marked before they run: no batch of the owner before was larger."""

_MOST = 999
_MARK = re.compile(r"failsoft/1 (suspect|among|alone|again) deaths=([0-9]{1,3}) until=([0-9]{1,19}) of=([0-9]{1,19})")


# --- a model's process died: the count travels with the record --------------------------------------------------------


# --- a worker died: the mark beside the committed offset --------------------------------------------------------------


class MarkerState(StrEnum):
    """What a mark says of the records from the committed offset to its ``until``."""

    SUSPECT = "suspect"  # not in flight: they were in an earlier death, and have not been tried since
    AMONG = "among"  # in flight, with others
    ALONE = "alone"  # one record, in flight, and nothing else in the process
    AGAIN = "again"  # the same one, once more: a plug that is pulled twice in the same few milliseconds is no chance


_ALONE = {MarkerState.ALONE: 1, MarkerState.AGAIN: 2}
"""Deaths of a record by itself, by the mark that was found."""


@dataclass(frozen=True, slots=True)
class CrashMarker:
    """``deaths`` of workers that are known of, with these records in flight; ``until`` is the offset after them.

    They are some ``of`` (an offset too) those that were suspected before them: the death of a worker may be another
    lane's doing, and then the killer is still among the rest.
    """

    state: MarkerState
    deaths: int
    until: int
    of: int

    def __str__(self) -> str:
        return f"failsoft/1 {self.state} deaths={min(self.deaths, _MOST)} until={self.until} of={self.of}"


def parse(metadata: str | None) -> CrashMarker | None:
    """The mark in an offset's metadata; None for whatever else stands there, which anybody may have written."""
    found = _MARK.fullmatch(metadata or "")
    return None if found is None else CrashMarker(MarkerState(found[1]), int(found[2]), int(found[3]), int(found[4]))


P = TypeVar("P", bound=tuple[str, int])
"""A partition, as its topic and number."""


@dataclass(frozen=True, slots=True)
class BatchMode(Generic[P]):
    """How a batch is run: the marks to write before, whether nothing else may run, and whether it is run at all."""

    marks: Mapping[P, CrashMarker]
    alone: bool = False
    poison: PoisonRecord | None = None


@dataclass(frozen=True, slots=True)
class _Suspicion:
    deaths: int
    until: int
    of: int
    alone: int = 0  # deaths with the record before ``until`` in flight, and nothing else

    @property
    def is_poison(self) -> bool:
        return self.alone >= ENOUGH

    @property
    def standing(self) -> CrashMarker:
        """The mark while nothing is in flight: the same suspicion, or the same verdict, for the next owner."""
        if self.alone:
            return CrashMarker(
                MarkerState.AGAIN if self.is_poison else MarkerState.ALONE, self.deaths - 1, self.until, self.of
            )
        return CrashMarker(MarkerState.SUSPECT, self.deaths, self.until, self.of)

    def at(self, position: int) -> _Suspicion | None:
        """What is left of it. Past ``until`` the rest is suspected as it was before; a conviction clears it."""
        if position < self.until:
            return self
        if position >= self.of or self.is_poison:
            return None
        return _Suspicion(self.deaths - 1, self.of, self.of)


class CrashTracker(Generic[P]):
    """What one lane suspects, partition by partition.

    One is *watched* until the records that an owner before may have had in flight are behind: its batches are marked.
    One is *suspected* from a mark that is found to its ``until``: it is read by itself, in small batches after one
    death, and one record at a time, alone in the process, after two. Who was alone twice is convicted.
    """

    def __init__(self) -> None:
        self._suspects: dict[P, _Suspicion] = {}
        self._passed: dict[P, int] = {}  # records since the lane opened, while the partition is watched

    def opened(self, place: P, offset: int, metadata: str | None) -> CrashMarker | None:
        """What stands beside a committed offset; the mark, if it says anything of what lies ahead."""
        mark = parse(metadata)
        if mark is None or mark.until <= offset:
            return None
        died = mark.state is not MarkerState.SUSPECT
        self._suspects[place] = _Suspicion(mark.deaths + died, mark.until, mark.of, _ALONE.get(mark.state, 0))
        return mark

    def choose(self, readable: Sequence[P]) -> tuple[P, int] | None:
        """The one partition to read from now, and at most how many records; None: all of them, as ever.

        A suspected one that may not be read now (of a rung, while the breaker is open) keeps nobody waiting.
        """
        found = [(s.alone, s.deaths, place) for place, s in self._suspects.items() if place in readable]
        if not found:
            return None
        _, deaths, place = max(found)
        return place, 1 if deaths >= ENOUGH else CAREFUL

    def mode(self, last: Mapping[P, int]) -> BatchMode[P]:
        """How to run a batch, whose last offsets are ``last``. It was read as ``choose`` said."""
        for place, offset in last.items():
            suspicion = self._suspects.get(place)
            if suspicion is not None:
                alone = suspicion.deaths >= ENOUGH
                same = suspicion.alone > 0 and offset == suspicion.until - 1
                guilty = suspicion.is_poison and same
                of = suspicion.of if alone else suspicion.until
                state = MarkerState.AGAIN if same else MarkerState.ALONE if alone else MarkerState.AMONG
                mark = CrashMarker(state, suspicion.deaths, offset + 1, of)
                return BatchMode({place: mark}, alone, PoisonRecord(suspicion.deaths) if guilty else None)
        watched = [(p, at + 1) for p, at in last.items() if self._passed.get(p, 0) < WATCHED]
        return BatchMode({p: CrashMarker(MarkerState.AMONG, 0, until, until) for p, until in watched})

    def ran(self, mode: BatchMode[P]) -> dict[P, CrashMarker]:
        """The marks after a run alone: it is over, so a commit that fails now, and ends the worker, convicts nobody."""
        return {place: self._suspects[place].standing for place in mode.marks}

    def offset_metadata(
        self, mode: BatchMode[P], committed: Mapping[P, int], moved: Mapping[P, int]
    ) -> dict[P, tuple[int, str]]:
        """The offsets that a batch commits, and what is to stand beside each: nothing, or what is suspected still.

        Every mark of ``mode`` is replaced, where the offset has not ``moved`` too.
        """
        offsets = {place: committed[place] for place in mode.marks} | {**moved}
        return {place: (at, self._after(place, at)) for place, at in offsets.items()}

    def _after(self, place: P, position: int) -> str:
        suspicion = self._suspects.pop(place, None)
        if suspicion is None or (left := suspicion.at(position)) is None:
            return ""
        self._suspects[place] = left
        return str(left.standing)

    def passed(self, place: P, records: int, all_there_were: bool) -> None:
        """So many records were committed; ``all_there_were``: nothing that could be read is left."""
        self._passed[place] = WATCHED if all_there_were else self._passed.get(place, 0) + records

    def gone(self, place: P) -> None:
        """What was suspected is not there any more (retention, compaction): nobody waits for it."""
        self._suspects.pop(place, None)
