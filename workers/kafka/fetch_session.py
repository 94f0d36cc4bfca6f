"""A fetch session with one broker (KIP-227): what the next request contains, and what the last answer changes. Pure.

A broker remembers the partitions of a session, with their offsets. A full request (epoch 0) names them all and starts a
session. An incremental request names only what has changed, so an idle worker with a thousand partitions sends about
fifty bytes. The rules are those of Kafka's FetchSessionHandler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Partition = tuple[str, int]
"""Topic and partition. aiokafka's TopicPartition is one."""

NO_SESSION: Final = 0
"""The id with which a broker answers when it keeps no session, because all of its slots are in use."""

FULL: Final = 0
"""The epoch of a full request."""

LAST_EPOCH: Final = 2**31 - 1

SESSION_ID_NOT_FOUND: Final = 70
"""Kafka's code for a session that the broker does not know: it restarted, or gave the slot to another client."""


@dataclass(frozen=True, slots=True)
class FetchContent:
    """What one fetch request says.

    Attributes:
        session_id: the broker's id of the session, or NO_SESSION.
        epoch: FULL, or the number of this request in the session.
        partitions: each partition to add or to change, with its fetch offset and most bytes.
        forgotten: the partitions that the session no longer contains.
    """

    session_id: int
    epoch: int
    partitions: list[tuple[Partition, int, int]]
    forgotten: list[Partition]


class FetchSession:
    """The session with one broker. At most one request may be in flight.

    ``want`` and ``drop`` say which partitions to fetch. ``request`` gives the next request; then ``answered`` or
    ``lost`` must follow. A call costs the same for any number of partitions; a request costs what has changed.
    """

    def __init__(self) -> None:
        self._wanted: dict[Partition, tuple[int, int]] = {}
        self._sent: dict[Partition, tuple[int, int]] = {}  # what the broker has, if it received the last request
        self._changed: set[Partition] = set()
        self._id = NO_SESSION
        self._epoch = FULL

    @property
    def idle(self) -> bool:
        """True when no partition is wanted: there is nothing to ask for."""
        return not self._wanted

    def wanted(self) -> list[Partition]:
        """The partitions that the next request fetches."""
        return list(self._wanted)

    def want(self, partition: Partition, offset: int, max_bytes: int) -> None:
        """Fetch ``partition`` from ``offset`` on, at most ``max_bytes`` at once. It becomes the last in a full request.

        A broker fills an answer in the order of the request, and sends a batch over ``max_bytes`` only if it comes
        first. Without a session, such a batch behind a partition with always more records would never come.
        """
        self._wanted.pop(partition, None)
        self._wanted[partition] = (offset, max_bytes)
        self._changed.add(partition)

    def drop(self, partition: Partition) -> None:
        """Do not fetch ``partition`` any more."""
        if self._wanted.pop(partition, None) is not None:
            self._changed.add(partition)

    def contains(self, partition: Partition) -> bool:
        """Whether the last request left ``partition`` in the session."""
        return partition in self._sent

    def sent(self, partition: Partition) -> int | None:
        """The offset at which the answer to the last request begins for ``partition``; None if it is not in it."""
        place = self._sent.get(partition)
        return None if place is None else place[0]

    def request(self) -> FetchContent:
        """The next request, which makes the broker's session equal to what is wanted."""
        if self._epoch == FULL:
            self._sent = dict(self._wanted)
            self._changed.clear()
            return FetchContent(self._id, FULL, [(p, *place) for p, place in self._sent.items()], [])
        added: list[tuple[Partition, int, int]] = []
        forgotten: list[Partition] = []
        for partition in self._changed:
            place = self._wanted.get(partition)
            if place is None:
                if self._sent.pop(partition, None) is not None:
                    forgotten.append(partition)
            elif self._sent.get(partition) != place:
                self._sent[partition] = place
                added.append((partition, *place))
        self._changed.clear()
        return FetchContent(self._id, self._epoch, added, forgotten)

    def answered(self, error_code: int, session_id: int) -> bool:
        """Note the head of an answer. False means an error and no partitions: ask again, with a full request.

        Args:
            error_code: Kafka's error code of the whole answer; 0 is none.
            session_id: the answer's session id.
        """
        if error_code:
            if error_code == SESSION_ID_NOT_FOUND:
                self._id = NO_SESSION
            self._epoch = FULL
            return False
        if session_id == NO_SESSION:
            self._id, self._epoch = NO_SESSION, FULL
        elif self._epoch == FULL:
            self._id, self._epoch = session_id, 1
        else:
            self._epoch = 1 if self._epoch == LAST_EPOCH else self._epoch + 1
        return True

    def lost(self) -> None:
        """The last request may or may not have reached the broker. The next one is full.

        It keeps the session's id, so that the broker ends the old session when it starts the new one.
        """
        self._epoch = FULL
