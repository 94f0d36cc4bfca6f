"""Pure: how far each lane of a worker has answered each topic, for the header of its outputs.

``Committer`` asks it for each transaction. Its positions only grow, also while a lane reads again what a rewind
permits: they say what was answered, and the committed offsets say what is read next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from failsoft.schemas import positions
from failsoft.schemas.rewind import Rewind, Row, marked

Offsets = Mapping[str, int]
"""Offsets by topic."""


@dataclass(slots=True)
class _LanePositions:
    """One lane.

    Attributes:
        answered: what was answered, by ``positions.key``.
        keys: that key of each topic.
        rewinds: what may be answered again, by topic.
        ladder: the topics of its rungs and of its replays.
    """

    answered: dict[str, int]
    keys: Mapping[str, str]
    rewinds: dict[str, Rewind]
    ladder: Collection[str]

    def with_(self, offsets: Offsets) -> dict[str, int]:
        """What is answered with ``offsets``."""
        moved = {self.keys.get(topic, topic): at for topic, at in offsets.items()}
        return positions.furthest((self.answered, moved))


@dataclass(slots=True)
class LanePositions:
    """The positions of all lanes of a worker.

    Attributes:
        exactly_once: outputs and offsets commit together. If not, the outputs carry the positions committed before
            them, since a crash may leave outputs in the log whose offsets were not committed.
    """

    exactly_once: bool
    _lanes: dict[int, _LanePositions] = field(default_factory=dict)

    def opened(
        self,
        lane: int,
        answered: Mapping[str, int],
        keys: Mapping[str, str],
        rewinds: Mapping[str, Rewind],
        ladder: Collection[str],
    ) -> None:
        """A lane begins.

        Args:
            lane: its partition index.
            answered: the positions that its outputs have, and those where it begins, by ``positions.key``. Topics that
                it does not read any more keep theirs: they may be added again.
            keys: that key of each topic that it reads.
            rewinds: the permissions beside its committed offsets, by topic.
            ladder: its rungs and the replay topic.
        """
        self._lanes[lane] = _LanePositions(dict(answered), keys, dict(rewinds), ladder)

    def metadata(self, lane: int, topic: str, offset: int, own: str) -> str:
        """The metadata for a committed offset: ``own`` of the lane, and the permission of a rewind that still holds."""
        rewind = self._of(lane).rewinds.get(topic)
        return rewind.beside(own) if rewind is not None and offset < rewind.until else own

    def marked(self, lane: int, rows: list[Row], offsets: Collection[str]) -> list[Row]:
        """``rows`` of a batch that moves the offsets of some topics, with the marks of the rewinds that caused them."""
        of = self._of(lane)
        found = {topic: rewind for topic, rewind in of.rewinds.items() if topic in offsets}
        if not found:
            return rows
        again = [found.pop(topic) for topic in of.ladder if topic in found]
        return marked(rows, found, again[0] if again else None)

    def stamped(self, lane: int, rows: Sequence[Row], offsets: Offsets) -> list[Row]:
        """All ``rows`` that a transaction writes to a partition of the lane, the last one with the lane's positions.
        ``offsets``: what the transaction commits of the lane.
        """
        of = self._of(lane)
        now = of.with_(offsets) if self.exactly_once else of.answered
        if not rows or not now:
            return [*rows]
        key, value, headers = rows[-1]
        return [*rows[:-1], (key, value, [*headers, positions.header(now)])]

    def committed(self, lane: int, offsets: Offsets) -> None:
        """A transaction with ``offsets`` of the lane is committed."""
        of = self._of(lane)
        of.answered = of.with_(offsets)
        for topic, at in offsets.items():
            if topic in of.rewinds and at >= of.rewinds[topic].until:
                del of.rewinds[topic]

    def _of(self, lane: int) -> _LanePositions:
        return self._lanes.setdefault(lane, _LanePositions({}, {}, {}, ()))
