"""The soak's report: what counts as recovery, as a stall, and as a kept promise."""

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
    """Two lanes with an event a second; the primary answers each after half a second, with these exceptions.

    In lane 1 a fallback answers the events of 3 to 7 at 8.25. In lane 0 the primary answers the event of 4 at 6.25.
    """
    even = [Answer(lane, float(t), t + 0.4, t + 0.5, True) for lane in (0, 1) for t in range(12)]
    late = {(1, 3.0): 8.25, (1, 4.0): 8.25, (1, 5.0): 8.25, (1, 6.0): 8.25, (1, 7.0): 8.25, (0, 4.0): 6.25}
    return [
        replace(a, written=at, read=at, primary=a.lane == 0) if (at := late.get((a.lane, a.event))) else a for a in even
    ]


def _report(**changes: Any) -> Report:
    plain = Report(
        about={"seed": 1, "brokers": 1},
        events=24,
        seconds=12.0,
        faults=[Done(Kind.KILL, 2.45, 2.45, [1]), Done(Kind.NAN, 2.75, 3.75, [0, 1])],
        ends=[End(2.75, "w0", -9, "kill -9", ""), End(5.0, "w1", 1, "", "so it ends")],
        answers=_answers(),
        fates={"primary": 24},
        broken={},
    )
    return replace(plain, **changes)


def test_recovery_is_the_next_answer_of_each_lane_that_was_hit() -> None:
    """Recovery is the time until the next answer of each hit lane can be read; answers written before the fault do not
    count.
    """
    rows = _report().as_json()["faults"]
    kill = rows["kill -9"]
    assert kill["times"] == 1 and kill["max"] == pytest.approx(8.25 - 2.45)
    nan = rows["model: NaN"]  # lane 0 goes on at once
    assert nan["max"] == pytest.approx(8.25 - 2.75)
    assert nan["next answer, s: p50"] == pytest.approx(((3.5 - 2.75) + (8.25 - 2.75)) / 2)
    assert nan["the primary again, s: max"] == pytest.approx(8.5 - 3.75)
    assert rows["all"]["times"] == 2


def test_a_broker_counts_as_down_until_it_answers() -> None:
    """A lone broker counts as down from the order to stop until it answers again; what it commits while stopping is no
    recovery.

    With three brokers the other two answer.
    """
    down = Done(Kind.BROKER_RESTART, 0.2, 2.6, [0])
    rows = _report(faults=[down]).as_json()["faults"]
    assert rows["broker restart"]["max"] == pytest.approx(3.5 - 0.2)
    rows = _report(faults=[down], about={"seed": 1, "brokers": 3}).as_json()["faults"]
    assert rows["broker restart"]["max"] == pytest.approx(0.5 - 0.2)


def test_a_stall_is_the_longest_time_without_an_answer() -> None:
    """A stall is the longest time between two answers: of all lanes together, and of the worst lane."""
    stalls = _report().as_json()["longest_stall"]
    assert stalls["anywhere"] == pytest.approx(5.5 - 3.5)
    assert stalls["of_a_lane"] == pytest.approx(8.25 - 2.5)


def test_only_a_worker_that_was_killed_counts_as_killed() -> None:
    """Only killed workers count as kills; a worker that ended by itself is listed with its exit code."""
    report = _report()
    assert report.kills == 1
    assert report.as_json()["ends"] == {"kill -9 → -9": 1, "by itself → 1": 1}


@pytest.mark.parametrize(
    "changes", [{"broken": {"doubled": ["t-0-7: 2 times revision 0"]}}, {"failed": ["it"]}, {"trouble": ["it"]}]
)
def test_what_is_broken_or_undone_is_not_kept(changes: dict[str, Any]) -> None:
    """A broken promise, a fault that could not be made and other trouble each mean NOT KEPT; breaches name their
    events.
    """
    good, bad = _report(), _report(**changes)
    assert good.kept and not bad.kept
    assert good.as_json()["verdict"] == dict.fromkeys(PROMISES, 0)
    text = bad.render()
    assert "NOT KEPT" in text and ("t-0-7: 2 times" in text) == ("broken" in changes)
    assert json.loads(json.dumps(bad.as_json()))["kept"] is False
