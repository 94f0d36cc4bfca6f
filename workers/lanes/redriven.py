"""Takes dead letters that another tool sent back out of a lane's batch: they go on as replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from failsoft.schemas.attempt import Attempt
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import Record
from failsoft.topics import redriven
from failsoft.topics.names import Names
from failsoft.topics.routing import OutgoingRecord
from failsoft.workers.kafka.letter_search import FoundLetter
from failsoft.workers.lanes.trouble import Cause, LaneTrouble
from failsoft.workers.scoring.plan import Scored

log = structlog.get_logger("failsoft.redriven")


class Letters(Protocol):
    """The part of failsoft.workers.kafka.letter_search.LetterSearch that a lane uses; it is documented there."""

    async def find(self, claims: Mapping[int, Attempt]) -> Mapping[int, FoundLetter]: ...
    def replayed(self, letter: LetterId, now_ms: int) -> None: ...


@dataclass(slots=True)
class Diverted:
    """A batch without the letters that were sent back.

    Attributes:
        kept: the records to score, in order.
        replays: the records for the replay topic, by partition.
        outcomes: counts of ``failsoft_events_total`` of the others, by its labels.
    """

    kept: Sequence[Record]
    replays: dict[int, list[OutgoingRecord]] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def join(self, scored: Scored) -> None:
        """Add the letters to the verdicts of the records that were kept."""
        scored.verdicts.replays = self.replays
        scored.outcomes.update(self.outcomes)


class RedrivenLetters:
    """Recognises letters that were sent back (docs/decisions/0020-redriven-letters.md).

    Args:
        names: the pipeline's topics.
        letters: finds letters on the dead topic.
        now_ms: the wall clock (epoch milliseconds).
    """

    def __init__(self, names: Names, letters: Letters, now_ms: Callable[[], int]) -> None:
        self._names, self._letters, self._now_ms = names, letters, now_ms

    async def divert(self, records: Sequence[Record]) -> Diverted:
        """Take the letters out of ``records``.

        A record whose headers claim a letter that does not exist stays: it is an event like any other. A letter that
        was replayed is not replayed again.

        Raises LaneTrouble when the dead topic cannot be searched now. To answer a letter as a new event because a
        broker is away would be wrong, and it is no reason to end the worker.
        """
        claims = redriven.claims(records, self._names)
        if not claims:
            return Diverted(records)
        try:
            found = await self._letters.find(claims)
        except KafkaError as error:
            first = records[min(claims)]
            why = f"a dead letter came back, and cannot be looked up on {self._names.dead} now: {error!r}"
            place = TopicPartition(first.topic, first.partition)
            raise LaneTrouble(Cause.LETTERS_UNREAD, place, first.offset, why, "it is tried again by itself") from error
        diverted = Diverted([record for row, record in enumerate(records) if row not in found])
        replaying: set[LetterId] = set()
        for row, letter in found.items():
            record, repeated = records[row], letter.replayed or letter.id in replaying
            diverted.outcomes[record.topic, "repeated" if repeated else "redriven"] += 1
            if not repeated:
                replaying.add(letter.id)
                self._letters.replayed(letter.id, self._now_ms())
                rows = diverted.replays.setdefault(letter.id.partition, [])
                rows.append(redriven.replay(record, claims[row], letter.id))
        self._log(records, claims, found, diverted)
        return diverted

    def _log(
        self,
        records: Sequence[Record],
        claims: Mapping[int, Attempt],
        found: Mapping[int, FoundLetter],
        diverted: Diverted,
    ) -> None:
        for (topic, outcome), n in diverted.outcomes.items():
            did = "go on as replays" if outcome == "redriven" else "were replayed before, and are skipped"
            log.warning(f"dead letters came back on an input topic; they {did}", topic=topic, letters=n)
        unknown = [records[row] for row in claims if row not in found]
        if unknown:
            first = unknown[0]
            log.warning(
                f"records have the headers of dead letters that are not on {self._names.dead}; they are new events",
                records=len(unknown),
                first=f"{first.topic}-{first.partition}-{first.offset}",
            )
