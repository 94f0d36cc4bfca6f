"""The soak's report: what it counts as recovery, as a stall, and as a promise kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.system.soak.crew import End
from tests.system.soak.faults import Done
from tests.system.soak.report import PROMISES, Answer, Report
from tests.system.soak.schedule import Kind


def _answers() -> list[Answer]:
    """Two lanes, an event a second, answered half a second later by the primary, but: lane 1's of the moments 3 to 5
    are read at 9, by another, and so is one of lane 0 that was made at 4.
    """
    even = [Answer(lane, float(t), t + 0.5, True) for lane in (0, 1) for t in range(12)]
    late = {(1, 3.0), (1, 4.0), (1, 5.0), (0, 4.0)}
    return [replace(a, read=9.0, primary=False) if (a.lane, a.event) in late else a for a in even]


def _report(**changes: Any) -> Report:
    plain = Report(
        about={"seed": 1},
        events=24,
        seconds=12.0,
        faults=[Done(Kind.KILL, 2.75, 2.75, [1]), Done(Kind.NAN, 2.75, 3.75, [0, 1])],
        ends=[End(2.75, "w0", -9, "kill -9", ""), End(5.0, "w1", 1, "", "so it ends")],
        answers=_answers(),
        fates={"primary": 24},
        broken={},
    )
    return replace(plain, **changes)


def test_recovery_is_the_first_answer_to_an_event_made_after_the_fault() -> None:
    """An answer that was on its way does not count, and neither does a later event's if an earlier one is still owed
    nothing: whichever can be read first ends the time, in each lane that was hit.
    """
    rows = _report().as_json()["faults"]
    kill = rows["kill -9"]
    assert kill["times"] == 1 and kill["max"] == pytest.approx(6.5 - 2.75)  # lane 1: event 6, read before 3 to 5
    nan = rows["model: NaN"]
    assert nan["max"] == pytest.approx(6.5 - 2.75) and nan["answers again, s: p50"] == pytest.approx((0.75 + 3.75) / 2)
    assert nan["the primary again, s: max"] == pytest.approx(6.5 - 3.75)
    assert rows["all"]["times"] == 2


def test_a_stall_is_the_longest_time_without_an_answer() -> None:
    """Of all lanes together, and of the worst one."""
    stalls = _report().as_json()["longest_stall"]
    assert stalls["anywhere"] == pytest.approx(2.0)  # lane 0 is late with one, while lane 1 is late with three
    assert stalls["of_a_lane"] == pytest.approx(6.5 - 2.5)


def test_only_a_worker_that_was_killed_counts_as_killed() -> None:
    """One that ended by itself is among the ends, with its code."""
    report = _report()
    assert report.kills == 1
    assert report.as_json()["ends"] == {"kill -9 → -9": 1, "by itself → 1": 1}


@pytest.mark.parametrize(
    "changes", [{"broken": {"doubled": ["t-0-7: 2 times revision 0"]}}, {"failed": ["it"]}, {"trouble": ["it"]}]
)
def test_what_is_broken_or_undone_is_not_kept(changes: dict[str, Any]) -> None:
    """A fault that could not be made is no proof either; the events of a broken promise are named."""
    good, bad = _report(), _report(**changes)
    assert good.kept and not bad.kept
    assert good.as_json()["verdict"] == dict.fromkeys(PROMISES, 0)
    text = bad.render()
    assert "NOT KEPT" in text and ("t-0-7: 2 times" in text) == ("broken" in changes)
    assert json.loads(json.dumps(bad.as_json()))["kept"] is False
