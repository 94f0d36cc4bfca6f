"""Where a partition stands against what was answered: the states, what they say, and what settles them."""

from __future__ import annotations

import pytest

from failsoft.schemas import positions
from failsoft.schemas.record import Header
from failsoft.schemas.rewind import Rewind
from failsoft.workers.kafka.chunk import FetchedRecord
from failsoft.workers.lanes.standing import Memory, PartitionStanding, State, Tail

TP = ("in", 3)


def _record(offset: int, origin: int | None = None, at: dict[str, int] | None = None) -> FetchedRecord:
    value = b"{}" if origin is None else b'{"origin":{"topic":"in","partition":3,"offset":%d}}' % origin
    headers: list[Header] = [] if at is None else [positions.header(at)]
    return FetchedRecord("scored", 3, offset, 0, b"k", value, headers)


def _standing(
    committed: int | None,
    answered: int | None,
    *,
    first: int = 0,
    end: int = 1000,
    metadata: str = "",
    certain: bool = True,
    before: int | None = None,
) -> PartitionStanding:
    known = {} if answered is None else {"in": answered}
    memory = Memory(known, known if before is None else {"in": before}, certain)
    return PartitionStanding.of(TP, "id", None if committed is None else (committed, metadata), memory, (first, end))


@pytest.mark.parametrize(
    ("standing", "state", "said"),
    [
        (_standing(None, None), State.NEW, ""),
        (_standing(None, 0), State.NEW, ""),
        (_standing(None, 40, first=40), State.NEW, ""),
        (_standing(None, None, certain=False, end=0), State.NEW, ""),
        (_standing(200, 200), State.OK, ""),
        (_standing(201, 200), State.OK, ""),
        (_standing(200, None), State.OK, ""),
        (_standing(200, 100, certain=False), State.OK, ""),
        (_standing(None, 200), State.MISSING, "in-3 offsets 0 to 199 (200) would be answered again"),
        (_standing(None, 200, first=50), State.MISSING, "in-3 offsets 50 to 199 (150) would be answered again"),
        (_standing(None, None, certain=False), State.MISSING, "which ones is not known"),
        (_standing(None, 30, certain=False), State.MISSING, "at least up to 30"),
        (_standing(None, 200, end=5), State.MISSING, "the log ends at 5, so the topic is another one now"),
        (_standing(80, 200), State.BEHIND, "in-3 offsets 80 to 199 (120) would be answered again"),
        (_standing(80, 200, metadata=Rewind("x", 200).beside("")), State.REWINDING, ""),
        (_standing(80, 200, first=100), State.BEHIND, "in-3 offsets 100 to 199 (100) would be answered again"),
        (_standing(60, 80, first=100), State.DELETED, "from 80 to 99 (20) were deleted before they were read"),
        (_standing(80, 200, first=100, metadata=Rewind("x", 200).beside("")), State.DELETED, "from 80 to 99 (20)"),
        (_standing(80, 80, first=100), State.DELETED, "from 80 to 99 (20) were deleted before they were read"),
        (_standing(None, 80, first=100), State.DELETED, "from 80 to 99 (20) were deleted before they were read"),
        (_standing(200, 200, end=100), State.BEYOND, "200 is after the log's end, 100"),
        (_standing(80, 120, before=80), State.OK, ""),  # at least once: a crash before the commit
        (_standing(None, 120, before=0), State.NEW, ""),  # the same, before the first commit
        (_standing(79, 120, before=80), State.BEHIND, "in-3 offsets 79 to 119"),
    ],
)
def test_the_state_of_a_partition(standing: PartitionStanding, state: State, said: str) -> None:
    """And what is said about it."""
    assert standing.state is state and said in standing.why
    assert bool(standing.why) is bool(standing.mend) is state.is_wrong


@pytest.mark.parametrize(
    ("standing", "commands"),
    [
        (_standing(None, 200), ["offsets repair --topic in:3", "offsets rewind --topic in:3 --to 0 --again"]),
        (_standing(80, 200), ["offsets repair --topic in:3", "offsets rewind --topic in:3 --to 80 --again"]),
        (_standing(None, None, certain=False), ["offsets rewind --topic in:3 --to 0 --again"]),
        (_standing(None, 200, end=5), ["offsets rewind --topic in:3 --to 0 --again"]),
        (_standing(80, 80, first=100), ["offsets skip --topic in:3"]),
        (_standing(80, 200, first=90), ["offsets repair --topic in:3", "offsets rewind --topic in:3 --to 90 --again"]),
    ],
)
def test_the_commands_that_settle_it(standing: PartitionStanding, commands: list[str]) -> None:
    """A repair is named only where what was answered is known, and is in the log."""
    assert all(command in standing.mend for command in commands)
    assert ("repair" in standing.mend) is standing.can_repair is (len(commands) == 2)


def test_after_a_cut_log_the_end_is_named_before_the_beginning() -> None:
    """A broker that lost some records has the same topic: from its beginning all events would be answered again."""
    first, second = _standing(200, 200, end=100).mend.split("; ")
    assert "rewind --topic in:3 --to 100 --again" in first and "--to earliest" in second


def test_offsets_without_an_answer_are_counted() -> None:
    """A reset to the end loses events in silence; this is what tells of it."""
    assert _standing(230, 200).passed == 30 and _standing(200, 200).passed == 0 and _standing(80, 200).passed == 0


def test_a_topic_made_anew_is_new() -> None:
    """Nothing of it was answered, whatever was of the former topic."""
    memory = Memory({"in:old": 200}, {"in:old": 200})
    assert PartitionStanding.of(TP, "new", None, memory, (0, 1000)).state is State.NEW


def test_the_tail_of_a_partition() -> None:
    """The newest positions count, and the origins only of what came after them: those are older otherwise."""
    assert Tail.of([]) == Tail()
    assert Tail.of([_record(0, at={"in": 5}), _record(1, at={"in": 9})]) == Tail({"in": 9})
    assert Tail.of([_record(0, 7, {"in": 5}), _record(1, 3), _record(2, 2)]) == Tail({"in": 5}, {"in": 4})
    assert Tail.of([_record(0, 41), _record(1, 17), _record(2)]) == Tail(None, {"in": 42})


def test_the_memory_of_a_lane() -> None:
    """The furthest of all its outputs. At least once, origins say what was answered, not what was committed."""
    tails = [Tail({"in": 5, "rung": 2}), Tail(None, {"in": 9})]
    both = {"in": 9, "rung": 2}
    assert Memory.of(tails[0], tails[1:], True) == Memory(both, both)
    assert Memory.of(tails[1], tails[:1], True) == Memory(both, both, by_origins=True)
    assert Memory.of(tails[0], tails[1:], False) == Memory(both, {"in": 5, "rung": 2})
    assert not Memory.of(Tail(emptied=True), tails, True).certain
    assert Memory.of(Tail(), [Tail(emptied=True)], True).certain  # letters alone say nothing of the answers


def test_answers_of_an_earlier_version_after_positions() -> None:
    """A fleet that was rolled back: its last answers have no positions. They are further than these, and no repair is
    offered, since they may be corrections of events long before the lane's end.
    """
    memory = Memory.of(Tail(None, {"in": 200}), [Tail({"in:id": 100})], True)
    stands = PartitionStanding.of(TP, "id", (150, ""), memory, (0, 1000))
    assert stands.state is State.BEHIND and not stands.can_repair
    assert "at least up to 200: the last answers are of an earlier version" in stands.why
    assert "repair" not in stands.mend and "rewind --topic in:3 --to 150 --again" in stands.mend
