"""Which calls are marked ``alone``, so that they share no run with rows of other lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from failsoft.schemas.failure import Failure, Kind
from failsoft.workers.scoring.plan import Call, CallResult, Plan
from tests.kit import Answer, FakeBoard, Rec, broken, events, fine, plan, run, trio, waiting

SUSPECT = waiting(crashes=1, failure=Failure(Kind.CRASHED, "signal 6"))


def marks(
    records: Sequence[Rec], the_plan: Plan, admits: Mapping[str, int] | None = None, model: Answer = fine
) -> list[tuple[str, int, bool]]:
    """Each call's key, its rows, and whether it is marked."""
    seen: list[tuple[str, int, bool]] = []

    def noting(answer: Answer) -> Answer:
        def noted(call: Call) -> CallResult:
            seen.append((call.key, len(call), call.alone))
            return answer(call)

        return noted

    versions = {"m": 2, "lite": 1, "a": 1, "b": 1, "c": 1}
    models = {"m": noting(model), **dict.fromkeys(["lite", *"abc"], noting(fine))}
    run(records, the_plan, FakeBoard(versions, admits or {}), models)
    return seen


def test_healthy_calls_are_not_marked() -> None:
    """Events and retries that crashed nothing may share a run."""
    assert marks([*events(2), waiting(offset=3)], plan()) == [("m@2", 3, False)]


def test_a_suspected_record_is_marked_and_the_others_are_not() -> None:
    """A bystander of a second crash would be dead-lettered as poison."""
    assert marks([*events(2), SUSPECT], plan()) == [("m@2", 2, False), ("m@2", 1, True)]


@pytest.mark.parametrize("admitted", [1, 2])
def test_probes_are_marked(admitted: int) -> None:
    """A probe must not fail for another lane's row, nor slow the other lanes."""
    assert marks(events(2), plan(), {"m@2": admitted}) == [("m@2", admitted, True)]


def test_an_ensemble_marks_each_member_by_itself() -> None:
    """A suspected record is marked for every member, a probe only for the member that probes."""
    assert marks([*events(2), SUSPECT], trio(), {"b@1": 9}) == [
        *(("a@1", 2, False), ("b@1", 2, True), ("c@1", 2, False)),
        *(("a@1", 1, True), ("b@1", 1, True), ("c@1", 1, True)),
    ]


@pytest.mark.parametrize(("admits", "marked"), [({}, False), ({"lite@1": 2}, True)])
def test_a_fallback_models_probes_are_marked(admits: dict[str, int], marked: bool) -> None:
    """Its breaker probes like a primary's."""
    seen = marks(events(2), plan(["model:lite", "static"]), admits, broken)
    assert seen == [("m@2", 2, False), ("lite@1", 2, marked)]
