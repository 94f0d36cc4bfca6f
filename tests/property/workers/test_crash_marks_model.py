"""Workers that die, against a log with killers in it: each killer is convicted soon, and nobody else ever is.

A world of lanes that share a process, step by step in any order: a lane reads, writes its marks, runs, and commits. The
process dies of a run with a killer in it, and by chance anywhere. What a new process knows is what stands in Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.workers.lanes.crash_marks import CrashTracker

Place = tuple[str, int]
Record = tuple[Place, int]
BATCH = 150
"""Records of a batch when nobody is careful: several batches of CAREFUL."""

DEATHS_EACH = 4
"""Among all that was in the batch, among few, and alone."""


class Death(Exception):
    """The process ends."""


ENTER, ALONE, ON = "enter", "enter alone", "on"


@dataclass
class World:
    """``ends`` has each partition's length; ``stored`` is what is committed, and beside it the metadata."""

    ends: dict[Place, int]
    killers: set[Record]
    stored: dict[Place, tuple[int, str]] = field(default_factory=dict)
    is_poison: list[Record] = field(default_factory=list)
    unlucky: set[Record] = field(default_factory=set)  # alone in flight when somebody pulled the plug
    inside: int = 0
    alone: Record | None = None

    def lane(self, places: list[Place]) -> Iterator[str]:
        """One life of a lane; yields what it will do next."""
        tracker: CrashTracker[Place] = CrashTracker()
        at = {p: self.stored.get(p, (0, ""))[0] for p in places}
        for p in places:
            tracker.opened(p, *self.stored.get(p, (0, "")))
        while readable := [p for p in places if at[p] < self.ends[p]]:
            chosen, left = tracker.choose(readable), BATCH
            if chosen:
                readable, left = [chosen[0]], chosen[1]
            batch: dict[Place, int] = {}
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
            if mode.poison is None and rows & self.killers:
                raise Death
            yield ON
            if mode.alone:
                self.stored |= {p: (at[p], str(mark)) for p, mark in tracker.ran(mode).items()}
                yield ON
            moved = {p: last + 1 for p, last in batch.items()}
            self.stored |= tracker.offset_metadata(mode, at, moved)
            at |= moved
            self.is_poison += rows if mode.poison else ()
            self.inside, self.alone = self.inside - 1, None

    def life(self, lanes: list[list[Place]], pick: Random, plug: int) -> bool:
        """One process; True if it did all there was. The plug is pulled after so many steps (0: never)."""
        self.inside, self.alone = 0, None
        running = [self.lane(places) for places in lanes]
        try:
            plans = {i: step for i, lane in enumerate(running) if (step := next(lane, None))}
            while plans:
                ready = [i for i, step in plans.items() if step == ON or self._enters(step)]
                i = pick.choice(ready)
                step = next(running[i], None)
                plans = {j: s for j, s in plans.items() if j != i} | ({i: step} if step else {})
                plug -= 1
                if plug == 0:
                    self.unlucky |= {self.alone} if self.alone else set()
                    return False
        except Death:
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
def test_killers_are_convicted_and_nobody_else(
    lengths: list[list[int]], shots: list[int], plugs: list[int], pick: Random
) -> None:
    """In at most four deaths each, whatever else ends the process. Only who is alone in flight when plugs are pulled
    can be taken for a killer; and without such a thing each killer is convicted, once, and all is read.
    """
    lanes = [[(f"topic{j}", i) for j, _ in enumerate(ends)] for i, ends in enumerate(lengths)]
    ends = {(f"topic{j}", i): n for i, found in enumerate(lengths) for j, n in enumerate(found)}
    everything = [(place, offset) for place, n in ends.items() for offset in range(n)]
    killers = {everything[shot % len(everything)] for shot in shots} if everything else set()
    world = World(ends, killers)
    for plug in plugs:
        world.life(lanes, pick, plug)
    deaths = 0
    while not world.life(lanes, pick, 0):
        deaths += 1
        assert deaths <= DEATHS_EACH * len(killers)
    assert sorted(world.is_poison) == sorted(set(world.is_poison)), "once"
    assert killers <= {*world.is_poison} <= killers | world.unlucky
    assert {p: at for p, (at, _) in world.stored.items()} == {p: n for p, n in ends.items() if n}
    assert not any(said for _, said in world.stored.values()), "nobody is suspected any more"
