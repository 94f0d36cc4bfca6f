"""What stands beside a committed offset: a crash marker, and the id of the topic."""

from __future__ import annotations

import pytest

from failsoft.schemas.rewind import Rewind
from failsoft.workers.lanes import crash_marks
from failsoft.workers.lanes.crash_marks import CrashMarker, MarkerState
from failsoft.workers.lanes.offset_note import join, of_present_topics, split

OLD, NEW = "AAECAwQFBgcICQoLDA0ODw", "_" * 21 + "w"
REWIND = Rewind("r-1", 9)
MARK = str(CrashMarker(MarkerState.AMONG, 1, 20, 30))


@pytest.mark.parametrize("mark", ["", MARK, REWIND.beside(""), REWIND.beside(MARK), "another program's", "topic=short"])
@pytest.mark.parametrize("topic_id", [OLD, NEW, None])
def test_both_are_read_back(mark: str, topic_id: str | None) -> None:
    """Also without one of them: an earlier release wrote no id, and most offsets have no marker."""
    assert split(join(mark, topic_id)) == (mark, topic_id)
    assert len(join(mark, topic_id)) < 200  # brokers take 4096 bytes


def test_the_id_is_the_one_that_kafkas_tools_print() -> None:
    """So a person can compare: base64 without padding."""
    assert join("", OLD) == "topic=AAECAwQFBgcICQoLDA0ODw"
    assert crash_marks.parse(split(join(MARK, OLD))[0]) == CrashMarker(MarkerState.AMONG, 1, 20, 30)


def test_offsets_of_a_former_topic_are_told_apart() -> None:
    """Where an id is missing, on either side, nothing is concluded."""
    a, b, c, d = (("t", i) for i in range(4))
    committed = {a: (5, join(MARK, OLD)), b: (6, join("", NEW)), c: (7, ""), d: (8, join("", OLD))}
    present, former = of_present_topics(committed, {a: NEW, b: NEW, c: NEW, d: None})
    assert present == {b: (6, ""), c: (7, ""), d: (8, "")}
    assert former == {a: 5}
