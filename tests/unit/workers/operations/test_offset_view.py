"""What each order on offsets makes of a partition: exactly what it says, or a refusal."""

from __future__ import annotations

import pytest

from failsoft.schemas.fleet.breaker import Alert
from failsoft.schemas.rewind import Rewind, split
from failsoft.workers.lanes.standing import Memory, PartitionStanding
from failsoft.workers.operations.offset_view import (
    OffsetMove,
    OffsetRow,
    OrderRefused,
    UnreadableBatch,
    history,
    listed,
    places,
    repaired,
    rewound,
    skipped,
)
from failsoft.workers.operations.offsets import _batch_end
from tests.record_batches import batch, marker

MARK = "failsoft/1 suspect deaths=1 until=300 of=300"


def _row(
    committed: int | None,
    answered: int | None,
    *,
    first: int = 0,
    end: int = 1000,
    metadata: str = "",
    certain: bool = True,
    unreadable: UnreadableBatch | None = None,
) -> OffsetRow:
    known = {} if answered is None else {"in": answered}
    memory = Memory(known, known, certain)
    at = None if committed is None else (committed, metadata)
    return OffsetRow("in", 3, PartitionStanding.of(("in", 3), None, at, memory, (first, end)), unreadable)


BROKEN = _row(200, 200, unreadable=UnreadableBatch(203, 240, "its checksum is wrong"))
HIDDEN = _row(200, 200, unreadable=UnreadableBatch(200, None, "its checksum is wrong"))


def test_a_repair_goes_to_what_was_answered() -> None:
    """With the lane's crash marker, which is about records that come later."""
    assert repaired(_row(None, 200)) == OffsetMove(_row(None, 200), 200, "")
    move = repaired(_row(80, 200, metadata=MARK))
    assert (move.to, move.metadata, move.lost, move.again) == (200, MARK, None, None)


@pytest.mark.parametrize(
    "row", [_row(200, 200), _row(None, None), _row(None, None, certain=False), _row(80, 80, first=100), BROKEN]
)
def test_a_repair_never_guesses(row: OffsetRow) -> None:
    """Nothing to repair, nothing known, or a loss that another order must record."""
    with pytest.raises(OrderRefused, match="in:3"):
        repaired(row)


@pytest.mark.parametrize(
    ("row", "to", "lost"),
    [
        (_row(80, 80, first=100), None, (80, 100)),
        (_row(None, 80, first=100), None, (80, 100)),
        (_row(80, 80, first=100), 120, (80, 120)),
        (BROKEN, None, (203, 240)),
        (BROKEN, 250, (203, 250)),
        (HIDDEN, 201, (200, 201)),
        (_row(200, 200), 210, (200, 210)),
    ],
)
def test_a_skip_loses_exactly_one_range(row: OffsetRow, to: int | None, lost: tuple[int, int]) -> None:
    """What was deleted, or the batch that cannot be read, or up to the offset that the operator names."""
    move = skipped(row, to)
    assert (move.lost, move.to) == (lost, lost[1])
    alert = move.alert("skip", "ann", "ticket 7", 5)
    assert (alert.name, alert.key, alert.worker, alert.reason) == ("lost", "in-3", "ann", "skip: ticket 7")
    assert (alert.first_offset, alert.end_offset) == lost and Alert.parse(alert.to_bytes()) == alert


@pytest.mark.parametrize(
    ("row", "to", "said"),
    [
        (_row(200, 200), None, "nothing to skip: its state is ok, and offset 200 can be read"),
        (_row(200, 200), 2000, "use 201 to 1000"),
        (_row(200, 200), 200, "use 201 to 1000"),
        (_row(1000, 1000), 1001, "nothing to skip: the log ends at 1000"),
        (_row(80, 80, first=100), 90, "use 100 to 1000"),
        (BROKEN, 230, "use 240 to 1000"),
        (HIDDEN, None, "say --to OFFSET"),
        (_row(None, 200), 300, "settle that first: failsoft offsets repair"),
    ],
)
def test_a_skip_is_refused_where_it_would_lose_more_or_nothing(row: OffsetRow, to: int | None, said: str) -> None:
    """The message says what would be right."""
    with pytest.raises(OrderRefused, match=said):
        skipped(row, to)


@pytest.mark.parametrize(
    ("row", "to", "until"),
    [
        (_row(200, 200), 50, 200),
        (_row(80, 200), 80, 200),
        (_row(None, 200), 0, 200),
        (_row(None, 30, certain=False), 0, 1000),
        (_row(120, 200, metadata=Rewind("old", 200).beside("")), 50, 200),
        (_row(200, 200, end=100), 0, 200),
    ],
)
def test_a_rewind_permits_what_was_answered(row: OffsetRow, to: int, until: int) -> None:
    """From the offset to the position after what was answered, or to the end where that is not known."""
    move = rewound(row, to, "id")
    assert move is not None and (move.to, move.again) == (to, (to, until))
    assert split(move.metadata) == (Rewind("id", until), "")


@pytest.mark.parametrize("row", [_row(200, 200), _row(None, None)])
def test_a_partition_that_is_not_read_beyond_the_offset_stays(row: OffsetRow) -> None:
    """A rewind by time has such partitions, and moving them would skip events."""
    assert rewound(row, 300, "id") is None


@pytest.mark.parametrize(
    ("row", "to", "said"),
    [
        (_row(80, 80, first=100), 100, "settle that first: failsoft offsets skip"),
        (_row(200, 200, first=100), 50, "is not in the log, which has 100 to 1000"),
        (_row(None, 200), 300, "is after what was answered"),
    ],
)
def test_a_rewind_never_skips(row: OffsetRow, to: int, said: str) -> None:
    """Forwards there is skip, which records what is lost."""
    with pytest.raises(OrderRefused, match=said):
        rewound(row, to, "id")


def test_a_partition_that_cannot_be_told_is_refused() -> None:
    """It has no leader, for example."""
    row = OffsetRow("in", 3, None, unknown="cannot be told: no leader")
    for order in (repaired, lambda r: skipped(r, 5), lambda r: rewound(r, 5, "id")):
        with pytest.raises(OrderRefused, match="no leader"):
            order(row)
    assert row.is_wrong and listed([row])[0]["state"] == "unknown"


def test_the_orders_are_listed_from_their_alerts() -> None:
    """Oldest first; other alerts are left out."""
    alerts = [
        skipped(BROKEN, None).alert("skip", "ann", "", 2000),
        Alert("breaker", "m@1", 1500, "closed", "open", "", None),
        repaired(_row(None, 200)).alert("repair", "bob", "holidays", 1000),
    ]
    rows = history(alerts)
    assert [(r["what"], r["who"], r["count"], r["why"]) for r in rows] == [
        ("offsets", "bob", 0, "repair: holidays"),
        ("lost", "ann", 37, "skip: no reason given"),
    ]


def test_places_are_topics_or_partitions_of_them() -> None:
    """A topic's name may have dots and dashes, but no colon."""
    there = {"a.b": 2, "c": 4}
    assert places(["a.b", "c:3", "a.b:1"], there) == [("a.b", 0), ("a.b", 1), ("c", 3)]
    for wrong in ("d", "d:1", "c:4", "c:x", "c:"):
        with pytest.raises(OrderRefused):
            places([wrong], there)


def test_the_end_of_a_batch_is_in_its_header() -> None:
    """Also where its records cannot be read, and behind others."""
    raw = batch(0, [0, 1, 2]) + marker(3, 1, commit=True) + batch(4, [4, 9])
    assert [_batch_end(raw, at) for at in (0, 2, 3, 4, 9, 10)] == [3, 3, 4, 10, 10, None]
    assert _batch_end(raw[:40], 0) is None and _batch_end(bytes(80), 0) is None
