"""Back-off: properties for all limits, tries and draws."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from failsoft.schemas.backoff import doubled, jittered, upper_half

SECONDS = st.floats(1e-3, 1e6)
DRAW = st.floats(0, 1, exclude_max=True)
TIMES = st.integers(0, 10**6)


@given(first=SECONDS, longest=SECONDS, times=TIMES)
def test_a_wait_never_shrinks_and_never_passes_the_longest(first: float, longest: float, times: int) -> None:
    """Each further try waits twice as long, up to the longest wait."""
    wait, after = doubled(first, longest, times), doubled(first, longest, times + 1)
    assert min(first, longest) <= wait <= after <= longest
    assert after in (2 * wait, longest)


@given(wait=SECONDS, share=st.floats(0, 1, exclude_max=True), u=DRAW, v=DRAW)
def test_jitter_stays_within_its_share_and_rises_with_the_draw(wait: float, share: float, u: float, v: float) -> None:
    """A wait stays within its share of jitter and grows with the draw."""
    low, high = jittered(wait, share, min(u, v)), jittered(wait, share, max(u, v))
    assert wait * (1 - share) <= low <= high <= wait * (1 + share)


@given(wait=SECONDS, u=DRAW)
def test_a_restart_waits_between_half_and_all(wait: float, u: float) -> None:
    """A restart waits between half of the limit and the limit, for every draw."""
    assert wait / 2 <= upper_half(wait, u) <= wait


@given(wait=SECONDS, share=st.floats(0, 1, exclude_max=True), draws=st.lists(DRAW))
def test_an_array_of_draws_is_each_draw(wait: float, share: float, draws: list[float]) -> None:
    """An array of draws gives exactly the waits of the single draws: a row's wait does not depend on its batch."""
    assert jittered(wait, share, np.array(draws, float)).tolist() == [jittered(wait, share, u) for u in draws]
