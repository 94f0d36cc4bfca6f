"""Workers that crash, against a log with crashing records: each of these becomes poison soon, and no other does.

The model has lanes that share a process. Each reads, writes its markers, runs and commits, step by step, in any order.
The process crashes when a crashing record runs, and is killed at random steps. A new process knows only what is stored
in Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.workers.lanes.crash_marks import CrashTracker

Partition = tuple[str, int]
Record = tuple[Partition, int]
BATCH = 150
"""The most records of a batch without suspicion: several times CAREFUL."""

CRASHES_EACH = 4
"""The crashes that one crashing record may cause: in a large batch, in a small one, and twice alone."""


class Crash(Exception):
    """The process ends."""


ENTER, ALONE, ON = "enter", "enter alone", "on"


@dataclass
class World:
    """The log, the committed offsets and the current process.

    Attributes:
        ends: the length of each partition.
        crashing: the records that crash the process when they run.
        stored: the committed offset of each partition, with its metadata.
        is_poison: the records that lanes took for poison.
        unlucky: the records that were alone in flight when the process was killed.
        inside: the number of lanes that hold the lock.
        alone: the record that runs alone.
    """

    ends: dict[Partition, int]
    crashing: set[Record]
    stored: dict[Partition, tuple[int, str]] = field(default_factory=dict)
    is_poison: list[Record] = field(default_factory=list)
    unlucky: set[Record] = field(default_factory=set)
    inside: int = 0
    alone: Record | None = None

    def lane(self, partitions: list[Partition]) -> Iterator[str]:
        """One lane from its opening to the end of the process. Yields its next step."""
        tracker: CrashTracker[Partition] = CrashTracker()
        at = {p: self.stored.get(p, (0, ""))[0] for p in partitions}
        for p in partitions:
            tracker.opened(p, *self.stored.get(p, (0, "")))
        while readable := [p for p in partitions if at[p] < self.ends[p]]:
            chosen, left = tracker.choose(readable), BATCH
            if chosen:
                readable, left = [chosen[0]], chosen[1]
            batch: dict[Partition, int] = {}
            for p in readable:
                n = min(left, self.ends[p] - at[p])
                left -= n
                batch |= {p: at[p] + n - 1} if n else {}
            rows = {(p, i) for p, last in batch.items() for i in range(at[p], last + 1)}
            mode = tracker.mode(batch)
            yield ALONE if mode.alone else ENTER
            self.inside += 1
            if mode.alone:
                (self.alone,) = rows
            self.stored |= {p: (at[p], str(mark)) for p, mark in mode.marks.items()}
            yield ON
            if mode.poison is None and rows & self.crashing:
                raise Crash
            yield ON
            if mode.alone:
                self.stored |= {p: (at[p], str(mark)) for p, mark in tracker.ran(mode).items()}
                yield ON
            moved = {p: last + 1 for p, last in batch.items()}
            self.stored |= tracker.offset_metadata(mode, at, moved)
            at |= moved
            self.is_poison += rows if mode.poison else ()
            self.inside, self.alone = self.inside - 1, None

    def run_process(self, lanes: list[list[Partition]], pick: Random, kill_after: int) -> bool:
        """Run one process. True if it read everything. It is killed after ``kill_after`` steps (0: never)."""
        self.inside, self.alone = 0, None
        running = [self.lane(partitions) for partitions in lanes]
        try:
            plans = {i: step for i, lane in enumerate(running) if (step := next(lane, None))}
            while plans:
                ready = [i for i, step in plans.items() if step == ON or self._enters(step)]
                i = pick.choice(ready)
                step = next(running[i], None)
                plans = {j: s for j, s in plans.items() if j != i} | ({i: step} if step else {})
                kill_after -= 1
                if kill_after == 0:
                    self.unlucky |= {self.alone} if self.alone else set()
                    return False
        except Crash:
            return False
        return True

    def _enters(self, step: str) -> bool:
        return self.alone is None and (step == ENTER or self.inside == 0)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=2), min_size=1, max_size=3),
    st.lists(st.integers(0, 2**16), max_size=4),
    st.lists(st.integers(1, 60), max_size=6),
    st.randoms(use_true_random=False),
)
def test_crashing_records_become_poison_and_no_others(
    lengths: list[list[int]], positions: list[int], kills: list[int], pick: Random
) -> None:
    """Each crashing record costs at most four crashes, whatever else ends the process. Only a record that is alone in
    flight when a process is killed can be taken for a crashing one. Without such kills each crashing record becomes
    poison exactly once, and everything is read.
    """
    lanes = [[(f"topic{j}", i) for j, _ in enumerate(ends)] for i, ends in enumerate(lengths)]
    ends = {(f"topic{j}", i): n for i, found in enumerate(lengths) for j, n in enumerate(found)}
    everything = [(partition, offset) for partition, n in ends.items() for offset in range(n)]
    crashing = {everything[position % len(everything)] for position in positions} if everything else set()
    world = World(ends, crashing)
    for kill_after in kills:
        world.run_process(lanes, pick, kill_after)
    crashes = 0
    while not world.run_process(lanes, pick, 0):
        crashes += 1
        assert crashes <= CRASHES_EACH * len(crashing)
    assert sorted(world.is_poison) == sorted(set(world.is_poison)), "once"
    assert crashing <= {*world.is_poison} <= crashing | world.unlucky
    assert {p: at for p, (at, _) in world.stored.items()} == {p: n for p, n in ends.items() if n}
    assert not any(metadata for _, metadata in world.stored.values()), "no record is suspected any more"
