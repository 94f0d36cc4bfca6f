"""The demo's parts: its stream, its fault, and the counts for its table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import orjson
import pytest

from failsoft import models
from failsoft.models.catalog.repository import Repository
from failsoft.models.runtime.session import ModelOutput, Session
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.record import Origin
from failsoft.topics.names import Names
from failsoft.workers.demo import applications
from failsoft.workers.demo.applications import Application, Flaw, expensive, stream
from failsoft.workers.demo.fault import EXPENSIVE_FROM, Fault, Faulty, Switch
from failsoft.workers.demo.tally import RungTally, Tallies
from failsoft.workers.demo.watch import read
from tests.kit import Rec

NAMES = Names("loans")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return applications.rows()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    repository = Repository(Path(models.__file__).parent / "repository")
    session = Session(repository.artifact("repayment", 2), repository.card("repayment"))
    yield session
    session.close()


def features(stream: list[Application], session: Session) -> Columns:
    return columns([orjson.loads(a.value)["features"] for a in stream], session.card.specs)


def test_the_same_seed_gives_the_same_stream(rows: list[dict[str, str]]) -> None:
    """Two runs with the same seed publish the same bytes; another seed spoils other applications."""
    once, again, other = (list(islice(stream(rows, seed), 2_000)) for seed in (7, 7, 8))
    assert once == again != other


def test_event_ids_are_unique_over_laps(rows: list[dict[str, str]]) -> None:
    """An applicant who applies again has the same key and a new event id."""
    sound = [a for a in islice(stream(rows[:5], 1), 15) if a.flaw is not Flaw.MALFORMED]
    ids = [orjson.loads(a.value)["event_id"] for a in sound]
    assert len(set(ids)) == len(ids) > len({a.key for a in sound})


def test_each_flaw_occurs_and_has_its_effect(rows: list[dict[str, str]]) -> None:
    """Malformed events are not JSON, invalid ones lack a required feature, incomplete ones imputed features."""
    all_events = list(islice(stream(rows, 7), 4_000))
    by_flaw = {flaw: [a for a in all_events if a.flaw is flaw] for flaw in Flaw}
    for flaw in (Flaw.MALFORMED, Flaw.INVALID, Flaw.INCOMPLETE):
        assert 0 < len(by_flaw[flaw]) < 0.1 * len(all_events)
    for a in by_flaw[Flaw.MALFORMED]:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(a.value)
    for a in by_flaw[Flaw.INVALID]:
        assert "debt_to_income_ratio" not in orjson.loads(a.value)["features"]
    for a in by_flaw[Flaw.INCOMPLETE]:
        assert not {"car_value", "driver_tenure"} & orjson.loads(a.value)["features"].keys()


def test_the_primary_answers_the_expensive_cars(rows: list[dict[str, str]], session: Session) -> None:
    """After a replay the primary must answer them with a confidence of at least ``min_confidence``."""
    outcome = session.run(features(expensive(rows, 6, 2 * EXPENSIVE_FROM), session))
    assert isinstance(outcome, ModelOutput)
    assert outcome.bad == {}
    assert outcome.predictions.confidences is not None
    assert float(outcome.predictions.confidences.min()) >= session.card.output.min_confidence  # type: ignore[operator]


def test_the_fault_hits_exactly_its_rows(rows: list[dict[str, str]], session: Session, tmp_path: Path) -> None:
    """Without a fault all answers are unchanged; with one, all rows or the rows above the price fail, and no other."""
    plain = [a for a in islice(stream(rows, 7), 20) if a.flaw is Flaw.NONE]
    batch = features([*expensive(rows, 2, 2 * EXPENSIVE_FROM), *plain], session)
    switch = Switch(tmp_path / "fault.json")
    faulty, healthy = Faulty(session, switch), session.run(batch)
    assert isinstance(healthy, ModelOutput)
    for fault, expected in (
        (Fault(), set()),
        (Fault(above=EXPENSIVE_FROM), {0, 1}),
        (Fault(True), set(range(batch.size))),
    ):
        switch.set(fault)
        outcome = faulty.run(batch)
        assert isinstance(outcome, ModelOutput)
        assert set(outcome.bad) == expected
        assert {f.kind for f in outcome.bad.values()} <= {Kind.BAD_OUTPUT}
        good = [i for i in range(batch.size) if i not in expected]
        np.testing.assert_array_equal(outcome.predictions.scores[good], healthy.predictions.scores[good])


def test_without_a_switch_file_there_is_no_fault(tmp_path: Path) -> None:
    """Before the demo writes the file, the primary is unchanged."""
    assert Switch(tmp_path / "fault.json").get() == Fault()


def test_a_rung_holds_the_records_after_the_committed_offsets() -> None:
    """Waiting records are counted, not offsets, because of transaction markers; the next due time is the earliest."""
    tallies = Tallies(NAMES)
    for partition, offset, due in ((0, 0, 500), (0, 1, 700), (0, 5, 900), (1, 0, 600)):
        tallies.fold(Rec(NAMES.retry("5s"), partition, offset, headers=[("failsoft-due-ms", b"%d" % due)]))
    assert tallies.rung("5s") == RungTally(4, 500)
    tallies.committed(NAMES.retry("5s"), 0, 2)
    assert tallies.rung("5s") == RungTally(2, 600)
    tallies.committed(NAMES.retry("5s"), 1, 1)
    tallies.committed(NAMES.retry("5s"), 0, 6)
    assert (tallies.rung("5s"), tallies.waiting, tallies.rung("1m")) == (RungTally(0, None), 0, RungTally(0, None))


def test_a_death_after_a_replay_is_counted_separately() -> None:
    """An event that dies again after a replay is not counted as a new dead letter."""
    tallies = Tallies(NAMES)
    died = Attempt(0, Origin("in", 0, 1, 0), 0, Failure(Kind.MALFORMED, "why"), "m", None, 0)
    again = replace(died, replays=1, replay_id="r")
    for attempt in (died, again):
        tallies.fold(Rec(NAMES.dead, 0, 0, headers=attempt.dead_headers("loans")))
    assert (dict(tallies.dead), tallies.dead_at_once, tallies.exhausted, tallies.dead_again) == (
        {"malformed": 1},
        1,
        0,
        1,
    )


def test_breakers_are_read_from_the_metrics_page() -> None:
    """The state with value 1 is the breaker's; transitions that never happened are left out."""
    page = (
        "# TYPE failsoft_breaker_state gauge\n"
        'failsoft_breaker_state{model="m",version="2",state="closed"} 0.0\n'
        'failsoft_breaker_state{model="m",version="2",state="open"} 1.0\n'
        "# TYPE failsoft_breaker_transitions_total counter\n"
        'failsoft_breaker_transitions_total{model="m",version="2",from="closed",to="open"} 3.0\n'
        'failsoft_breaker_transitions_total{model="m",version="2",from="open",to="half_open"} 0.0\n'
    )
    breakers = read(page)
    assert (breakers.states, dict(breakers.moves)) == ({"m@2": "open"}, {("m@2", "closed", "open"): 3})
