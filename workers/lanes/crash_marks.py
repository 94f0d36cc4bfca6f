"""Pure: which records one lane suspects of having crashed a worker, and how it reads and runs them.

When a model's own process crashes, the worker survives, and the crash count travels with the record in the header
``failsoft-crashes`` (failsoft.workers.scoring.poison). When a worker crashes, only Kafka survives. So before a lane
runs a batch, it writes a crash marker into the metadata of its committed offsets, and the next owner of the partition
reads the marker. docs/decisions/0014-poison.md has the protocol and the attacks on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from failsoft.workers.execution.batch_size import LARGEST
from failsoft.workers.scoring.poison import CRASHES_TO_POISON, PoisonRecord

CAREFUL = 64
"""The most records of a batch of suspected records after one crash. It is about the square root of the largest batch
(4,000): the search then takes about as many batches as it later takes single records."""

WATCHED = LARGEST
"""Records of each partition that run with a crash marker after a lane opens. The previous owner's last batch cannot
have been larger."""

_MOST = 999  # crashes that a marker can count: the pattern below takes three digits
_MARK = re.compile(r"failsoft/1 (suspect|among|alone|again) deaths=([0-9]{1,3}) until=([0-9]{1,19}) of=([0-9]{1,19})")


class MarkerState(StrEnum):
    """What a crash marker states about the records from the committed offset to its ``until``."""

    SUSPECT = "suspect"  # not in flight: an earlier crash made them suspected, and they have not run since
    AMONG = "among"  # in flight in one batch, other lanes may run batches too
    ALONE = "alone"  # one record, in flight, and nothing else runs in the process
    AGAIN = "again"  # the same record alone a second time: two crashes are no coincidence


_ALONE = {MarkerState.ALONE: 1, MarkerState.AGAIN: 2}
"""Crashes with one record alone in flight, by the state of the marker that the next owner reads."""


@dataclass(frozen=True, slots=True)
class CrashMarker:
    """A crash marker, as a lane writes it beside a committed offset.

    A crash may be caused by a batch of another lane. Then the crashing record is not below ``until`` but still among
    the records up to ``of``, so the marker keeps both.

    Attributes:
        state: whether the records are in flight, and with what else.
        deaths: worker crashes so far with these records in flight.
        until: the offset after the last record that the marker is about.
        of: the end offset of the whole suspected range; ``until`` is the end of its part that is in flight.
    """

    state: MarkerState
    deaths: int
    until: int
    of: int

    def __str__(self) -> str:
        return f"failsoft/1 {self.state} deaths={min(self.deaths, _MOST)} until={self.until} of={self.of}"


def parse(metadata: str | None) -> CrashMarker | None:
    """The crash marker in an offset's metadata. None for any other text: other programs may write metadata too."""
    match = _MARK.fullmatch(metadata or "")
    return None if match is None else CrashMarker(MarkerState(match[1]), int(match[2]), int(match[3]), int(match[4]))


P = TypeVar("P", bound=tuple[str, int])
"""A partition, as its topic and number."""


@dataclass(frozen=True, slots=True)
class BatchMode(Generic[P]):
    """How the lane runs one batch.

    Attributes:
        marks: the crash markers to write before the run, by partition.
        alone: whether no other batch may run in the process meanwhile.
        poison: set when the only record of the batch is poison and must not run.
    """

    marks: Mapping[P, CrashMarker]
    alone: bool = False
    poison: PoisonRecord | None = None


@dataclass(frozen=True, slots=True)
class _Suspects:
    """The suspected records of one partition: those from the committed offset to ``until``.

    Attributes:
        deaths: worker crashes with these records in flight.
        until: the offset after the last suspected record.
        of: as in CrashMarker.
        alone: how many of the crashes had only the record before ``until`` in flight.
    """

    deaths: int
    until: int
    of: int
    alone: int = 0

    @property
    def is_poison(self) -> bool:
        return self.alone >= CRASHES_TO_POISON

    @property
    def idle_marker(self) -> CrashMarker:
        """The marker while nothing is in flight. The next owner that reads it gets exactly these suspects.

        Reading ALONE or AGAIN adds one crash, so ``deaths`` is written one lower and the sum is right.
        """
        if self.alone:
            return CrashMarker(
                MarkerState.AGAIN if self.is_poison else MarkerState.ALONE, self.deaths - 1, self.until, self.of
            )
        return CrashMarker(MarkerState.SUSPECT, self.deaths, self.until, self.of)

    def after(self, position: int) -> _Suspects | None:
        """The records still suspected once ``position`` is committed; None if there are none.

        The last crash came from a batch that ended at ``until``. It does not count against the later records, up to
        ``of``. Once a poison record was dead-lettered, the cause is known and nothing is suspected any more.
        """
        if position < self.until:
            return self
        if position >= self.of or self.is_poison:
            return None
        return _Suspects(self.deaths - 1, self.of, self.of)


class CrashTracker(Generic[P]):
    """The crash bookkeeping of one lane, by partition. The lane reads and writes the markers; this class decides.

    A partition is *watched* after the lane opens, until all records that the previous owner may have had in flight
    are committed. Its batches run with a crash marker.

    A partition is *suspected* from the committed offset to the ``until`` of a marker that the lane reads when it
    opens. The lane reads a suspected partition by itself: after one crash in batches of at most CAREFUL records, after
    two crashes one record at a time, with nothing else running in the process. A record that was alone in flight in
    two crashes is poison.
    """

    def __init__(self) -> None:
        self._suspects: dict[P, _Suspects] = {}
        self._passed: dict[P, int] = {}  # records committed since the lane opened, while the partition is watched

    def opened(self, partition: P, offset: int, metadata: str | None) -> CrashMarker | None:
        """Read the metadata of a committed offset. Returns the marker if it concerns records from ``offset`` on.

        A marker with records in flight means that the previous owner crashed, and counts as one crash more. SUSPECT
        does not: a rebalance or a drain passes the suspicion on unchanged.
        """
        mark = parse(metadata)
        if mark is None or mark.until <= offset:
            return None
        crashed = mark.state is not MarkerState.SUSPECT
        self._suspects[partition] = _Suspects(mark.deaths + crashed, mark.until, mark.of, _ALONE.get(mark.state, 0))
        return mark

    def choose(self, readable: Sequence[P]) -> tuple[P, int] | None:
        """The one partition to read next, and the most records to read. None: read all ``readable`` as usual.

        A suspected partition that may not be read now (a rung, while the breaker is open) does not delay the others.
        """
        candidates = [
            (suspects.alone, suspects.deaths, partition)
            for partition, suspects in self._suspects.items()
            if partition in readable
        ]
        if not candidates:
            return None
        _, deaths, partition = max(candidates)
        return partition, 1 if deaths >= CRASHES_TO_POISON else CAREFUL

    def mode(self, last: Mapping[P, int]) -> BatchMode[P]:
        """How to run a batch that was read as ``choose`` decided. ``last`` has its last offset of each partition."""
        for partition, offset in last.items():
            suspects = self._suspects.get(partition)
            if suspects is not None:
                alone = suspects.deaths >= CRASHES_TO_POISON
                same = suspects.alone > 0 and offset == suspects.until - 1
                is_poison = suspects.is_poison and same
                of = suspects.of if alone else suspects.until
                state = MarkerState.AGAIN if same else MarkerState.ALONE if alone else MarkerState.AMONG
                mark = CrashMarker(state, suspects.deaths, offset + 1, of)
                return BatchMode({partition: mark}, alone, PoisonRecord(suspects.deaths) if is_poison else None)
        watched = [(p, at + 1) for p, at in last.items() if self._passed.get(p, 0) < WATCHED]
        return BatchMode({p: CrashMarker(MarkerState.AMONG, 0, until, until) for p, until in watched})

    def ran(self, mode: BatchMode[P]) -> dict[P, CrashMarker]:
        """The markers to write after a record ran alone, before its commit.

        The run is over. If the commit fails and ends the worker, that must not count as a crash of the record.
        """
        return {partition: self._suspects[partition].idle_marker for partition in mode.marks}

    def offset_metadata(
        self, mode: BatchMode[P], committed: Mapping[P, int], moved: Mapping[P, int]
    ) -> dict[P, tuple[int, str]]:
        """The offsets that a batch commits, each with its metadata: the marker of what is still suspected, or "".

        ``moved`` has the offsets that the batch advances. The other markers of ``mode`` are replaced too, at their
        ``committed`` offset, since the batch is no longer in flight.
        """
        offsets = {partition: committed[partition] for partition in mode.marks} | {**moved}
        return {partition: (offset, self._metadata(partition, offset)) for partition, offset in offsets.items()}

    def _metadata(self, partition: P, position: int) -> str:
        suspects = self._suspects.pop(partition, None)
        if suspects is None or (left := suspects.after(position)) is None:
            return ""
        self._suspects[partition] = left
        return str(left.idle_marker)

    def passed(self, partition: P, records: int, all_there_were: bool) -> None:
        """``records`` more were committed. ``all_there_were``: the partition has no further record to read now, so it
        is watched no longer.
        """
        self._passed[partition] = WATCHED if all_there_were else self._passed.get(partition, 0) + records

    def gone(self, partition: P) -> None:
        """Retention or compaction removed the suspected records, so the lane must not wait for them."""
        self._suspects.pop(partition, None)
