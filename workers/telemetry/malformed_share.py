"""The share of malformed events of each input topic in a window of time: most of them at once has one cause."""

from __future__ import annotations

from dataclasses import dataclass

from failsoft.models.breaker.window import Window
from failsoft.schemas.fleet.counts import Counts

SPAN = 60.0
"""Seconds of the window: one bad minute is seen within the minute, and a burst of a second is diluted."""

LEAST = 10
"""The fewest events in a window that say anything: of three events, two are malformed by chance."""

MOST, FEW = 0.5, 0.25
"""Above the first share the topic counts as unreadable, and from the second on as readable again. In between it stays
as it is, so that a share around a half does not switch it on and off."""


@dataclass(frozen=True, slots=True)
class MalformedChange:
    """A topic whose events became mostly malformed, or no longer are.

    Attributes:
        topic: the input topic.
        on: whether more than half of its events are malformed now.
        events: its events in the window.
        malformed: how many of them are malformed.
        example: why one of the newest is malformed; "" where none was in the last batch.
    """

    topic: str
    on: bool
    events: int
    malformed: int
    example: str

    @property
    def text(self) -> str:
        """The share in words, with the example."""
        share = f"{self.malformed:,} of {self.events:,} events in {SPAN:g} s are malformed"
        return f"{share}; one of them: {self.example}" if self.on else share


class MalformedShare:
    """Counts the events that a worker reads, by input topic. It stops nothing: malformed events are dead letters."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._on: set[str] = set()

    def add(self, topic: str, events: int, malformed: int, example: str, now: float) -> MalformedChange | None:
        """Count ``events`` of a batch at ``now`` (monotonic seconds), of which some were ``malformed``.

        Returns the change, if this is one.
        """
        window = self._windows.get(topic)
        if window is None:
            window = self._windows[topic] = Window(SPAN)
        window.add(Counts(events, malformed), now)
        found = window.totals(now)
        was, share = topic in self._on, found.failures / max(found.calls, 1)
        on = share > FEW if was else share > MOST
        if on is was or found.calls < LEAST:
            return None
        (self._on.add if on else self._on.discard)(topic)
        return MalformedChange(topic, on, found.calls, found.failures, example)
