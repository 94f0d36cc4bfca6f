"""The demo's view of the fleet: rows read from the changelog, the sums for an outage, and the table."""

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
HALF_OPEN_AGAIN = replace(HALF_OPEN, generation=4)
NEW_LEASE = replace(HALF_OPEN_AGAIN, generation=5)
CLOSED_AGAIN = BreakerRow(KEY, "closed", 6, 9_000)
OUTAGE = (CLOSED, OPEN, HALF_OPEN, REOPENED, HALF_OPEN_AGAIN, NEW_LEASE, CLOSED_AGAIN)
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


def outage_sums(rows: Sequence[BreakerRow], alerts: Sequence[Alert], opened: Mapping[str, int]) -> list[Sum]:
    return openings(KEY, read(rows), [Rec(value=a.to_bytes()) for a in alerts], opened)


def test_only_changes_of_state_are_listed() -> None:
    """A row with new counts or a new lease is not a change; the first row is compared with closed."""
    fleet = read(OUTAGE)
    assert [(c.from_, c.to) for c in fleet.changes] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    assert str(fleet.changes[0]) == "repayment@2: closed → open (generation 1, by demo-2: half of them failed)"
    assert (fleet.state(KEY), fleet.generation(KEY)) == ("closed", 6)
    assert (fleet.opened(KEY), fleet.opened(KEY, BreakerState.CLOSED), fleet.opened("other@1")) == (2, 1, 0)


def test_a_breaker_without_a_row_is_closed() -> None:
    """A breaker that was never reported on, or whose row was deleted, counts as closed."""
    fleet = BreakerHistory()
    fleet.fold(Rec(value=None))
    assert (fleet.state(KEY), fleet.generation(KEY), fleet.changes) == ("closed", 0, [])


def test_a_malformed_row_ends_the_demo() -> None:
    """The demo does not continue with a table that it cannot read."""
    with pytest.raises(Malformed):
        BreakerHistory().fold(Rec(value=b'{"key":"repayment@2","state":"ajar"}'))


def test_the_sums_of_a_complete_outage_hold() -> None:
    """The openings in the rows match the alerts, and each worker's breaker opened."""
    sums = outage_sums(OUTAGE, ALERTS, BOTH)
    assert [str(each) for each in sums if each.holds] == [
        "fleet's breaker of repayment@2 opened 2 = 1 by the workers' counts + 1 by a failed probe",
        "workers 2 = 2 opened with it",
    ]


def test_a_repeated_alert_counts_once() -> None:
    """A new owner may repeat the last alert of the one before."""
    assert all(each.holds for each in outage_sums(OUTAGE, [OPENED, *ALERTS], BOTH))


@pytest.mark.parametrize(
    ("rows", "alerts", "opened", "wrong"),
    [
        (
            [CLOSED],
            [],
            BOTH,
            "fleet's breaker of repayment@2 opened 0 = 0 by the workers' counts + 0 by a failed probe, but should be",
        ),
        (OUTAGE, ALERTS[1:], BOTH, "fleet's breaker of repayment@2 opened 1 ≠ 1"),
        (OUTAGE, ALERTS, {"demo-1": 2, "demo-2": 0}, "workers 2 ≠ 1 opened with it"),
    ],
)
def test_a_missing_part_of_an_outage_breaks_a_sum(
    rows: Sequence[BreakerRow], alerts: Sequence[Alert], opened: Mapping[str, int], wrong: str
) -> None:
    """A breaker that never opened, an opening without an alert, and a worker that did not obey each break one sum."""
    (only,) = [each for each in outage_sums(rows, alerts, opened) if not each.holds]
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
    """The line has the states by worker, the fleet's row, and the sum of the workers' counters."""
    assert (
        "repayment@2 demo-1 open, demo-2 half_open, fleet half_open "
        "(generation 4; opened 5 times by workers, 2 by the fleet)"
    ) in line(MOMENT)
    assert "versions: demo-1 3, demo-2 none yet, fleet repayment@2" in line(MOMENT)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_has_workers_and_fleet_side_by_side(width: int) -> None:
    """They fit in one line on a terminal of 80 columns too; a due retry waits for the breaker."""
    console = Console(width=width, height=50)
    with console.capture() as captured:
        console.print(render(MOMENT))
    rows = [text.strip("│ ").split() for text in captured.get().splitlines()]
    assert ["model", "demo-1", "demo-2", "fleet", "generation"] in rows
    assert ["version", "served", "3", "none", "yet", "2"] in rows
    assert f"{KEY} open half_open half_open 4".split() in rows
    assert ["times", "opened", "2", "3", "2"] in rows
    assert len(rows) <= 24
    assert "when the breaker allows" in captured.get()
