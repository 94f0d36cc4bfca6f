"""What the outputs of a lane say about how far it has come, also during a rewind."""

from __future__ import annotations

import pytest

from failsoft.schemas import positions
from failsoft.schemas.positions import REWIND
from failsoft.schemas.rewind import Rewind, Row, split
from failsoft.workers.lanes.lane_positions import LanePositions

ROWS: list[Row] = [(b"a", b"{}", []), (b"b", b"{}", [("own", b"x")])]


def _lane(exactly_once: bool = True, rewinds: dict[str, Rewind] | None = None) -> LanePositions:
    found = LanePositions(exactly_once)
    found.opened(3, {"t:id": 10, "r": 4, "dropped": 7}, {"t": "t:id", "r": "r"}, rewinds or {}, ["r"])
    return found


def _stamp(rows: list[Row]) -> dict[str, int] | None:
    assert all(positions.read(headers) is None for _, _, headers in rows[:-1])
    return positions.read(rows[-1][2])


def test_the_last_record_has_the_positions_that_commit_with_it() -> None:
    """Also those of topics that it did not move, or that the lane reads no longer. The rows themselves stay."""
    lane = _lane()
    assert _stamp(lane.stamped(3, ROWS, {"t": 12})) == {"t:id": 12, "r": 4, "dropped": 7}
    assert ROWS[-1][2] == [("own", b"x")] and lane.stamped(3, [], {"t": 12}) == []
    lane.committed(3, {"t": 12})
    assert _stamp(lane.stamped(3, ROWS, {})) == {"t:id": 12, "r": 4, "dropped": 7}


def test_at_least_once_the_positions_are_those_committed_before() -> None:
    """A crash may leave the outputs in the log without their offsets, which must not stop the next owner."""
    lane = _lane(exactly_once=False)
    assert _stamp(lane.stamped(3, ROWS, {"t": 12})) == {"t:id": 10, "r": 4, "dropped": 7}
    lane.committed(3, {"t": 12})
    assert _stamp(lane.stamped(3, ROWS, {"t": 15})) == {"t:id": 12, "r": 4, "dropped": 7}


def test_a_lane_that_has_not_begun_says_only_what_it_commits() -> None:
    """As in tests of the committer alone."""
    assert _stamp(LanePositions(True).stamped(0, ROWS, {"t": 1})) == {"t": 1}


def test_a_rewind_keeps_the_positions_and_its_permission_until_it_is_over() -> None:
    """The positions say what was answered. The permission stands beside each offset before its end, with a marker."""
    lane = _lane(rewinds={"t": Rewind("x", 10)})
    assert _stamp(lane.stamped(3, ROWS, {"t": 6}))["t:id"] == 10  # type: ignore[index]
    assert split(lane.metadata(3, "t", 6, "mark")) == (Rewind("x", 10), "mark")
    assert lane.metadata(3, "t", 10, "mark") == "mark" and lane.metadata(3, "r", 0, "") == ""
    lane.committed(3, {"t": 6})
    assert lane.metadata(3, "t", 7, "") != ""
    lane.committed(3, {"t": 10})
    assert lane.metadata(3, "t", 7, "") == ""


@pytest.mark.parametrize(("moved", "is_marked"), [({"t"}, True), ({"r"}, False)])
def test_only_what_was_read_from_the_rewound_topic_is_marked(moved: set[str], is_marked: bool) -> None:
    """A batch of other topics is not the rewind's."""
    lane = _lane(rewinds={"t": Rewind("x", 10)})
    value = b'{"origin":{"topic":"t","partition":3,"offset":9}}'
    [(_, _, headers)] = lane.marked(3, [(b"k", value, [("failsoft-revision", b"0")])], moved)
    assert ((REWIND, b"x") in headers) is is_marked
