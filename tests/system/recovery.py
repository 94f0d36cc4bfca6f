"""Recovery after a fault: when each lane answers again, the longest stall, and the expected fates."""

from __future__ import annotations

from collections import defaultdict

from tests.integration.verifier import Settlement, Verdict

STALL = 40.0
"""Seconds until each lane answers again after any broker fault.

A commit that hangs is given up after 12 s (workers.lanes.committer). A worker that has ended starts again within a
second, and may then wait for its group. The next owner of its lanes waits for its open transaction: that times out
after 8 s (workers.kafka.clients), and the broker looks for such transactions every 10 s.
"""


def answered_everywhere(settlement: Settlement, within: float = STALL) -> None:
    """Waits until each lane has written a new first answer, which means that it has recovered."""

    def ends() -> dict[int, int]:
        last = dict.fromkeys(range(settlement.partitions), -1)
        for r in settlement.reader.records[settlement.scored]:
            last[r.partition] = max(last[r.partition], r.offset)
        return last

    before = ends()
    settlement.reader.until(lambda: all(ends()[p] > before[p] for p in before), within, "an answer in each lane")


def longest_stall(settlement: Settlement) -> float:
    """The longest time between two first answers of one lane (seconds)."""
    times: dict[int, list[int]] = defaultdict(list)
    for answer in settlement.reader.records[settlement.scored]:
        if answer.header("failsoft-revision") == "0":
            times[answer.partition].append(answer.timestamp)
    gaps = [b - a for each in times.values() for a, b in zip(sorted(each), sorted(each)[1:], strict=False)]
    return max(gaps, default=0) / 1000


def kept(verdict: Verdict, published: int, failing: int) -> None:
    """Asserts the promise for each of ``published`` events; the primary never answers one in ``failing``."""
    assert not verdict.broken, str(verdict)
    bad = len(range(3, published, failing))  # tests.integration.pipeline.events
    assert verdict.counts == {"primary": published - bad, "confirmed: bad_output": bad}
