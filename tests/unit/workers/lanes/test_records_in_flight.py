"""The records that all lanes score at once."""

from __future__ import annotations

import asyncio

from failsoft.workers.lanes.records_in_flight import FEW, MOST, RecordsInFlight


async def test_lanes_wait_from_the_bound_until_few_are_left() -> None:
    """Not for each batch: every waiting lane wakes."""
    in_flight = RecordsInFlight()
    in_flight.enter(MOST - 1)
    assert in_flight.are_few
    await in_flight.wait_for_few()
    in_flight.enter(1)
    assert not in_flight.are_few
    waiting = asyncio.create_task(in_flight.wait_for_few())
    in_flight.leave(MOST - FEW - 1)
    await asyncio.sleep(0)
    assert not in_flight.are_few and not waiting.done()
    in_flight.leave(1)
    await asyncio.wait_for(waiting, 10)
    assert in_flight.are_few


async def test_a_lane_that_takes_first_lets_the_others_wait_again() -> None:
    """All of them wake at once, and together they could take many times the bound."""
    in_flight = RecordsInFlight()
    in_flight.enter(MOST)
    taken: list[int] = []

    async def lane(index: int) -> None:
        while not in_flight.are_few:
            await in_flight.wait_for_few()
        in_flight.enter(MOST)
        taken.append(index)

    lanes = [asyncio.create_task(lane(i)) for i in range(3)]
    for expected in ([0], [0, 1], [0, 1, 2]):
        in_flight.leave(MOST)
        for _ in range(10):
            await asyncio.sleep(0)
        assert taken == expected
    await asyncio.gather(*lanes)
