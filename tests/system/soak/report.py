"""The report of a soak test: faults, recovery times, the fates of all events, and the verdict."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.system.soak.crew import End
from tests.system.soak.faults import Done
from tests.system.soak.schedule import MODELS, Kind

PROMISES = (
    "lost",
    "doubled",
    "early",
    "never final",
    "wrong partition",
    "altered",
    "silent",
    "stray",
    "untraced",
    "inconsistent",
)
"""The verifier's promises; the report must show 0 breaches of each."""

NAMED = 5
"""The number of breaches of a promise that the report names."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        lane: the answer's lane.
        event: when its event was created (epoch seconds).
        written: when it was written (epoch seconds).
        read: when it could be read (epoch seconds).
        primary: whether the primary gave it.
        first: whether it is the event's first answer.
    """

    lane: int
    event: float
    written: float
    read: float
    primary: bool
    first: bool = True


@dataclass
class Report:
    """All figures of a run.

    Attributes:
        about: the options of the run.
        events: the number of events.
        seconds: the duration of the load (seconds).
        faults: the faults that were made.
        ends: the ends of workers.
        answers: the answers that were read live.
        fates: the number of events by fate.
        broken: the breaches by promise.
        lost_markers: transactions whose markers Kafka lost.
        failed: the faults that could not be made.
        skipped: the number of faults that were due after the load's end.
        trouble: other problems of the run.
    """

    about: Mapping[str, Any]
    events: int
    seconds: float
    faults: Sequence[Done]
    ends: Sequence[End]
    answers: Sequence[Answer]
    fates: Mapping[str, int]
    broken: Mapping[str, Sequence[str]]
    lost_markers: Sequence[str] = ()
    failed: Sequence[str] = ()
    skipped: int = 0
    trouble: Sequence[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept for every event, every fault could be made, and nothing else went wrong."""
        return not any(self.broken.values()) and not self.failed and not self.trouble

    @property
    def kills(self) -> int:
        """The number of live workers that were ended with SIGKILL."""
        return sum(end.code == -9 and bool(end.asked) for end in self.ends)

    def as_json(self) -> dict[str, Any]:
        """The report as ``--json`` writes it."""
        table = {row[0]: dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in self._rows()}
        return {
            **self.about,
            "events": self.events,
            "seconds": round(self.seconds, 1),
            "faults": table,
            "kills": self.kills,
            "ends": dict(self._ends()),
            "longest_stall": {"anywhere": stall(self.answers), "of_a_lane": self._lane_stall()},
            "latency": self._latency(),
            "fates": dict(self.fates),
            "verdict": {promise: len(self.broken.get(promise, ())) for promise in _promises(self.broken)},
            "broken": {promise: list(breaches[:NAMED]) for promise, breaches in self.broken.items()},
            "lost_markers": list(self.lost_markers),
            "failed": list(self.failed),
            "skipped": self.skipped,
            "trouble": list(self.trouble),
            "kept": self.kept,
        }

    def render(self) -> str:
        """The report as Markdown."""
        about = ", ".join(f"{name} {value}" for name, value in self.about.items())
        latency = self._latency()
        lines = [f"{about}; {self.events:,} events in {self.seconds:.0f} s", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in self._rows()]
        lines += [
            "",
            f"live workers killed with SIGKILL: {self.kills}; all ends: "
            + ", ".join(f"{what} {n}" for what, n in self._ends()),
            f"longest time without any answer: {stall(self.answers):.1f} s; of one lane: {self._lane_stall():.1f} s",
            "from an event to its first answer: "
            + ", ".join(f"{name} {1000 * s:,.0f} ms" for name, s in latency.items()),
            "",
            "fates of the events: " + ", ".join(f"{fate} {n:,}" for fate, n in sorted(self.fates.items())),
            "breaches that the verifier found: "
            + ", ".join(f"{p} {len(self.broken.get(p, ()))}" for p in _promises(self.broken)),
        ]
        lines += [f"  {promise}: {text}" for promise, breaches in self.broken.items() for text in breaches[:NAMED]]
        if self.lost_markers:
            lines.append(f"Kafka lost the markers of {len(self.lost_markers)} transactions (docs/decisions/0008)")
        if self.skipped:
            lines.append(f"the last {self.skipped} faults of the schedule came too late to be made under load")
        lines += [f"failed fault: {text}" for text in self.failed]
        lines += [f"trouble: {text}" for text in self.trouble]
        lines += ["", "the promise was kept" if self.kept else "NOT KEPT"]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[Any, ...]]:
        """The rows of the table: one for each kind of fault, and one for all."""
        by_lane = _Lanes(self.answers)
        waits: dict[str, list[float]] = defaultdict(list)
        again: dict[str, list[float]] = defaultdict(list)
        times = Counter(done.kind for done in self.faults)
        for done in self.faults:
            # A lone broker still commits while it stops, so only answers after its restart count as recovery.
            since = done.ended if done.kind in BROKER and self.about["brokers"] == 1 else done.began
            for lane in done.lanes:
                if (read := by_lane.answered_after(lane, since)) is not None:
                    waits[done.kind].append(read - done.began)
                if done.kind in MODELS and (read := by_lane.primary_after(lane, done.ended)) is not None:
                    again[done.kind].append(read - done.ended)
        rows = [
            (kind.value, times[kind], *_spread(waits[kind]), max(again[kind], default=None))
            for kind in Kind
            if times[kind]
        ]
        everything = [s for found in waits.values() for s in found]
        primary = [s for found in again.values() for s in found]
        return [*rows, ("all", len(self.faults), *_spread(everything), max(primary, default=None))]

    def _ends(self) -> list[tuple[str, int]]:
        counts = Counter(f"{end.asked or 'by itself'} → {end.code}" for end in self.ends)
        return sorted(counts.items())

    def _lane_stall(self) -> float:
        lanes: dict[int, list[Answer]] = defaultdict(list)
        for answer in self.answers:
            lanes[answer.lane].append(answer)
        return max((stall(found) for found in lanes.values()), default=0.0)

    def _latency(self) -> dict[str, float]:
        if not self.answers:
            return {}
        seconds = np.array([a.read - a.event for a in self.answers if a.first])
        values = [*np.percentile(seconds, (50, 99)), seconds.max()]
        return {name: round(float(s), 3) for name, s in zip(("p50", "p99", "max"), values, strict=True)}


BROKER = frozenset({Kind.BROKER_RESTART, Kind.BROKER_KILL})

COLUMNS = ("fault", "times", "next answer, s: p50", "p99", "max", "the primary again, s: max")


def stall(answers: Iterable[Answer]) -> float:
    """The longest time between two successive answers, by the time they could be read (seconds)."""
    times = np.sort(np.array([a.read for a in answers]))
    return float(np.diff(times).max()) if len(times) > 1 else 0.0


class _Lanes:
    """For each lane, the earliest time at which an answer written after a given moment could be read."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._any, self._primary = _earliest(answers), _earliest([a for a in answers if a.primary])

    def answered_after(self, lane: int, moment: float) -> float | None:
        """The time of the next answer in the lane; None if none was written after ``moment``."""
        return _after(self._any, lane, moment)

    def primary_after(self, lane: int, moment: float) -> float | None:
        """The same for answers by the primary."""
        return _after(self._primary, lane, moment)


Earliest = Mapping[int, tuple[Sequence[float], Sequence[float]]]
"""By lane: the times at which answers were written, ascending; for each, the earliest read time from it onwards."""


def _earliest(answers: Iterable[Answer]) -> Earliest:
    lanes: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for answer in answers:
        lanes[answer.lane].append((answer.written, answer.read))
    found = {}
    for lane, pairs in lanes.items():
        pairs.sort()
        written, read = np.array(pairs).T
        found[lane] = written, np.minimum.accumulate(read[::-1])[::-1]
    return found


def _after(earliest: Earliest, lane: int, moment: float) -> float | None:
    if lane not in earliest:
        return None
    written, read = earliest[lane]
    at = bisect_right(written, moment)
    return float(read[at]) if at < len(written) else None


def _spread(seconds: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """p50, p99 and maximum; None without values."""
    if not seconds:
        return None, None, None
    p50, p99, most = np.percentile(seconds, (50, 99, 100))
    return float(p50), float(p99), float(most)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _promises(broken: Mapping[str, object]) -> list[str]:
    return [*PROMISES, *sorted(broken.keys() - set(PROMISES))]
