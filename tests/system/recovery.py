"""When lanes answer again after something was broken, how long they did not, and what is to come of it all."""

from __future__ import annotations

from collections import defaultdict

from tests.integration.verifier import Settlement, Verdict

STALL = 40.0
"""Seconds. A commit that hangs is given up after 20 (workers.lanes.transaction), a worker that ended starts again
within a second, and may then wait for its group; whatever a broker does, each lane has answers again after this."""


def answered_everywhere(settlement: Settlement, within: float = STALL) -> None:
    """Waits until each lane has a first answer that it had not: whatever was broken, each has recovered."""

    def ends() -> dict[int, int]:
        found = dict.fromkeys(range(settlement.partitions), -1)
        for r in settlement.reader.records[settlement.scored]:
            found[r.partition] = max(found[r.partition], r.offset)
        return found

    before = ends()
    settlement.reader.until(lambda: all(ends()[p] > before[p] for p in before), within, "an answer in each lane")


def longest_stall(settlement: Settlement) -> float:
    """Seconds: the longest time in which a lane gave no first answer, between its first and its last one."""
    times: dict[int, list[int]] = defaultdict(list)
    for answer in settlement.reader.records[settlement.scored]:
        if answer.header("failsoft-revision") == "0":
            times[answer.partition].append(answer.timestamp)
    gaps = [b - a for each in times.values() for a, b in zip(sorted(each), sorted(each)[1:], strict=False)]
    return max(gaps, default=0) / 1000


def kept(verdict: Verdict, published: int, failing: int) -> None:
    """The promise, for each of ``published`` events, of which one in ``failing`` the primary never answers."""
    assert not verdict.broken, str(verdict)
    bad = len(range(3, published, failing))  # tests.integration.pipeline.events
    assert verdict.counts == {"primary": published - bad, "confirmed: bad_output": bad}
