"""The demo's view of the fleet: rows read from the changelog, and the facts about an outage that must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Alert, BreakerRow
from failsoft.schemas.wire import Malformed
from failsoft.workers.demo.breaker_history import BreakerHistory, openings
from failsoft.workers.demo.summary import Sum
from failsoft.workers.demo.table import Moment, Standing, line, render
from failsoft.workers.demo.tally import RungTally
from tests.kit import Rec

KEY = "repayment@2"
CLOSED = BreakerRow(KEY)
OPEN = BreakerRow(KEY, "open", 1, 1_000, 6_000, reason="half of them failed", changed_by="demo-2")
HALF_OPEN = BreakerRow(KEY, "half_open", 2, 6_000, changed_by="demo-1")
REOPENED = replace(OPEN, generation=3, reopenings=1)
LENT_AGAIN = replace(HALF_OPEN, generation=4)
LENT_ON = replace(LENT_AGAIN, generation=5)
CLOSED_AGAIN = BreakerRow(KEY, "closed", 6, 9_000)
STORY = (CLOSED, OPEN, HALF_OPEN, REOPENED, LENT_AGAIN, LENT_ON, CLOSED_AGAIN)
OPENED = Alert("breaker", KEY, 1_000, "closed", "open", "half of them failed", "demo-2")
ALERTS = (
    OPENED,
    replace(OPENED, from_="open", to="half_open"),
    replace(OPENED, from_="half_open"),
    replace(OPENED, from_="half_open", to="closed"),
    replace(OPENED, name="node_sick", from_="well", to="sick"),
    replace(OPENED, key="repayment-lite@1"),
)
BOTH = {"demo-1": 2, "demo-2": 3}


def read(rows: Sequence[BreakerRow]) -> BreakerHistory:
    fleet = BreakerHistory()
    for row in rows:
        fleet.fold(Rec(value=row.to_bytes()))
    return fleet


def told(rows: Sequence[BreakerRow], alerts: Sequence[Alert], opened: Mapping[str, int]) -> list[Sum]:
    return openings(KEY, read(rows), [Rec(value=a.to_bytes()) for a in alerts], opened)


def test_turns_are_changes_of_a_state() -> None:
    """A row that only counts, or lends probes anew, is none; the first row is compared with closed."""
    fleet = read(STORY)
    assert [(t.from_, t.to) for t in fleet.turns] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    assert str(fleet.turns[0]) == "repayment@2: closed → open (generation 1, by demo-2: half of them failed)"
    assert (fleet.state(KEY), fleet.generation(KEY)) == ("closed", 6)
    assert (fleet.opened(KEY), fleet.opened(KEY, BreakerState.CLOSED), fleet.opened("other@1")) == (2, 1, 0)


def test_a_breaker_without_a_row_is_closed() -> None:
    """Nothing was told of it yet; a row that was deleted says no more."""
    fleet = BreakerHistory()
    fleet.fold(Rec(value=None))
    assert (fleet.state(KEY), fleet.generation(KEY), fleet.turns) == ("closed", 0, [])


def test_a_row_that_no_owner_wrote_ends_the_story() -> None:
    """The demo does not go on with a table that it cannot read."""
    with pytest.raises(Malformed):
        BreakerHistory().fold(Rec(value=b'{"key":"repayment@2","state":"ajar"}'))


def test_an_outage_that_both_workers_met_adds_up() -> None:
    """Openings in the rows are those announced, and each worker opened."""
    found = told(STORY, ALERTS, BOTH)
    assert [str(each) for each in found if each.holds] == [
        "fleet's breaker of repayment@2 opened 2 = 1 by the workers' counts + 1 by a probe in vain",
        "workers 2 = 2 opened with it",
    ]


def test_an_alert_that_is_said_twice_is_one() -> None:
    """An owner's successor may repeat the last one."""
    assert all(each.holds for each in told(STORY, [OPENED, *ALERTS], BOTH))


@pytest.mark.parametrize(
    ("rows", "alerts", "opened", "wrong"),
    [
        (
            [CLOSED],
            [],
            BOTH,
            "fleet's breaker of repayment@2 opened 0 = 0 by the workers' counts + 0 by a probe in vain, and not 1 at",
        ),
        (STORY, ALERTS[1:], BOTH, "fleet's breaker of repayment@2 opened 1 ≠ 1"),
        (STORY, ALERTS, {"demo-1": 2, "demo-2": 0}, "workers 2 ≠ 1 opened with it"),
    ],
)
def test_an_outage_that_was_missed_shows(
    rows: Sequence[BreakerRow], alerts: Sequence[Alert], opened: Mapping[str, int], wrong: str
) -> None:
    """A fleet that never opened, an opening without an alert, and a worker that did not obey."""
    (only,) = [each for each in told(rows, alerts, opened) if not each.holds]
    assert str(only).startswith(wrong)


MOMENT = Moment(
    chapter="the breaker is open",
    elapsed=12,
    published=100,
    rate=10,
    answers={"primary": 60},
    provisional=40,
    corrected=0,
    confirmed=0,
    imputed=2,
    primary=KEY,
    serving={"demo-1": 3, "demo-2": None},
    breakers={KEY: Standing({"demo-1": "open", "demo-2": "half_open"}, BOTH, "half_open", 4, 2)},
    rungs={"5s": RungTally(40, 1_000)},
    dead={"malformed": 1},
    replayed=0,
    corrected_by_replay=0,
    dead_again=0,
    now_ms=2_000,
)


def test_the_line_has_workers_and_fleet_side_by_side() -> None:
    """States by worker, the fleet's row, and the counters of all workers summed."""
    assert (
        "repayment@2 demo-1 open, demo-2 half_open, fleet half_open "
        "(generation 4; opened 5 times by workers, 2 by the fleet)"
    ) in line(MOMENT)
    assert "versions: demo-1 3, demo-2 none yet, fleet repayment@2" in line(MOMENT)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_has_workers_and_fleet_side_by_side(width: int) -> None:
    """In one row, also on a terminal as narrow as they come; what is due waits for the breaker."""
    console = Console(width=width, height=50)
    with console.capture() as captured:
        console.print(render(MOMENT))
    rows = [text.strip("│ ").split() for text in captured.get().splitlines()]
    assert ["model", "demo-1", "demo-2", "fleet", "generation"] in rows
    assert ["version", "served", "3", "none", "yet", "2"] in rows
    assert f"{KEY} open half_open half_open 4".split() in rows
    assert ["times", "opened", "2", "3", "2"] in rows
    assert len(rows) <= 24
    assert "when the breaker lets it" in captured.get()
