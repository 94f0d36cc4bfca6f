"""The soak's schedule: repeatable, complete, and within the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.system.soak.schedule import CALM, MODELS, TRACKS, Kind, Options, plan


def test_the_same_seed_is_the_same_schedule() -> None:
    """The same seed gives the same schedule, and another seed another one."""
    assert plan(Options(seed=7)) == plan(Options(seed=7))
    assert plan(Options(seed=7)) != plan(Options(seed=8))


@pytest.mark.parametrize("seed", range(20))
def test_the_long_run_has_every_kind_and_thirty_kills(seed: int) -> None:
    """For any seed the long run has each kind at least twice, and ``kill -9`` at least forty times."""
    counts = Counter(fault.kind for fault in plan(Options(seed=seed)))
    assert set(counts) == set(Kind) and min(counts.values()) >= 2
    assert counts[Kind.KILL] >= 40, "a slow machine is late and must still make thirty"


@pytest.mark.parametrize("seed", range(20))
def test_a_track_has_one_fault_at_a_time_and_ends_in_calm(seed: int) -> None:
    """A track's faults do not overlap, all end before the calm at the end, and every worker is a victim."""
    options = Options(seed=seed, minutes=3, workers=2)
    faults = plan(options)
    assert list(faults) == sorted(faults, key=lambda f: f.at)
    for deck, _ in TRACKS.values():
        own = [f for f in faults if f.kind in deck]
        assert all(a.at + a.lasts < b.at for a, b in pairwise(own))
        assert own[-1].at + own[-1].lasts < options.seconds - CALM
    assert {f.victim for f in faults} == {0, 1}
    assert sorted(kind for deck, _ in TRACKS.values() for kind in deck) == sorted(Kind)


def test_a_kind_that_is_left_out_does_not_come() -> None:
    """A kind that is left out does not occur; leaving out a whole track does not change the other tracks."""
    options = Options(seed=3)
    without = plan(replace(options, without=frozenset(MODELS)))
    assert without == tuple(f for f in plan(options) if f.kind not in MODELS)
    assert plan(replace(options, without=frozenset(Kind))) == ()
