"""A crew of workers under live events and faults, until every event is settled."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.pipeline import Pipeline, running
from tests.integration.verifier import Settlement
from tests.system.feed import Feed
from tests.system.recovery import kept, longest_stall
from tests.system.soak.crew import Crew

SETTLED_WITHIN = 120
"""Seconds from the last fault until every event has its final answer."""


def settle(
    pipeline: Pipeline, crew: Crew, faults: Callable[[Settlement], None], least: int, rate: float, failing: int
) -> None:
    """Run ``crew`` under at least ``least`` events at ``rate`` a second while ``faults`` does its worst, and assert
    that the promise was kept. The primary never answers one event in ``failing``. A worker may end with 0 or 1 only.
    """
    with running(pipeline) as settlement:
        crew.start()
        try:
            with Feed(pipeline, least, rate, failing):
                settlement.wait_answered(least // 20)
                faults(settlement)
            settlement.wait_final(pipeline.published, SETTLED_WITHIN)
        finally:
            crew.stop()
        verdict = settlement.verdict()
    ends = [f"{end.id} → {end.code}" for end in crew.ends]
    print(f"{pipeline.published} events; longest stall {longest_stall(settlement):.1f} s; ends {ends}")
    kept(verdict, pipeline.published, failing)
    assert {end.code for end in crew.ends} <= {0, 1}, crew.ends
