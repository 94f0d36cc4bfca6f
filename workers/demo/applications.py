"""The demo's events: loan applications made from the data set's rows, a few of them spoiled on purpose.

The same seed gives the same stream.
"""

from __future__ import annotations

import csv
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path

from failsoft.schemas import wire
from failsoft.workers.operations.csv_cells import looks_like
from failsoft.workers.operations.event_files import EventLine
from failsoft.workers.operations.publish import Sent, publish
from failsoft.workers.settings import Settings

DATA = Path(__file__).parent / "data" / "car_loans_events.csv"


class Flaw(StrEnum):
    """What is wrong with an application, and how failsoft handles it."""

    NONE = "none"
    INCOMPLETE = "incomplete"  # lacks features that the card imputes: answered; the answer names the imputed features
    INVALID = "invalid"  # lacks a required feature: a dead letter
    MALFORMED = "malformed"  # cut off in the middle: a dead letter
    EXPENSIVE = (
        "expensive"  # valid, but for an expensive car, on which the primary fails during the demo's second fault
    )


SHARES: tuple[tuple[Flaw, float], ...] = ((Flaw.MALFORMED, 0.002), (Flaw.INVALID, 0.004), (Flaw.INCOMPLETE, 0.04))
"""The share of each flaw: at 200 events a second, one malformed every 2.5 seconds and eight a second to impute."""


@dataclass(frozen=True, slots=True)
class Application:
    """One event to publish.

    Attributes:
        key: the applicant's id; an applicant may apply more than once.
        value: the event as JSON, cut off if malformed.
        flaw: what is wrong with it.
    """

    key: bytes
    value: bytes
    flaw: Flaw


def rows() -> list[dict[str, str]]:
    """The rows of the data set, one for each application."""
    with DATA.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stream(rows: Sequence[Mapping[str, str]], seed: int) -> Iterator[Application]:
    """An endless stream. After the last of ``rows`` the same applicants apply again, with new event ids."""
    draw = random.Random(seed)
    lap = 0
    while True:
        lap += 1
        for row in rows:
            yield made(row, lap, _flaw(draw.random()))


def expensive(rows: Sequence[Mapping[str, str]], n: int, value: float) -> list[Application]:
    """``n`` applications of the first applicants, each for a car worth ``value`` (€)."""
    return [
        made({**row, "car_value": repr(value)}, f"expensive-{i}", Flaw.EXPENSIVE) for i, row in enumerate(rows[:n], 1)
    ]


def made(row: Mapping[str, str], lap: int | str, flaw: Flaw) -> Application:
    """Makes an event of the demo's pipeline from a CSV row, with ``flaw``."""
    features = {name: looks_like(text) for name, text in row.items() if name not in ("id", "timestamp")}
    if flaw is Flaw.INCOMPLETE:
        del features["car_value"], features["driver_tenure"]
    elif flaw is Flaw.INVALID:
        del features["debt_to_income_ratio"]
    event = {
        "event_id": f"{row['id']}-{lap}",
        "occurred_at": row["timestamp"].replace(" ", "T") + "Z",
        "features": features,
    }
    whole = wire.dumps(event)
    return Application(row["id"].encode(), whole[: len(whole) // 2] if flaw is Flaw.MALFORMED else whole, flaw)


def _flaw(u: float) -> Flaw:
    for flaw, share in SHARES:
        if u < share:
            return flaw
        u -= share
    return Flaw.NONE


HANDFUL = 10
"""Applications a step: added applications and the end of the stream wait for one step at most."""


class Feed:
    """Publishes applications to the pipeline's input at ``rate`` events a second, from ``run`` until ``end``."""

    def __init__(self, pipeline: Settings, source: Iterator[Application], rate: float) -> None:
        self._pipeline, self._source, self._rate = pipeline, source, rate
        self._extra: list[Application] = []
        self._ending = False
        self._sent: Sent | None = None

    @property
    def acknowledged(self) -> int:
        """The number of events that Kafka has acknowledged."""
        return 0 if self._sent is None else self._sent.published

    def add(self, applications: Sequence[Application]) -> None:
        """Publishes ``applications`` too, in the next step."""
        self._extra += applications

    def end(self) -> None:
        """Ends the stream; ``run`` returns when all sent events are acknowledged."""
        self._ending = True

    async def run(self) -> None:
        """Publishes until ``end``. Raises KafkaUnreachable or KafkaError."""
        topic = self._pipeline.input.topics[0]
        await publish(self._pipeline, topic, self._rows(), self._rate, None, lambda published: None, self._began)

    def _began(self, sent: Sent) -> None:
        self._sent = sent

    async def _rows(self) -> AsyncIterator[list[EventLine]]:
        while not self._ending:
            extra, self._extra = self._extra, []
            yield [(a.key, a.value) for a in (*extra, *islice(self._source, HANDFUL))]
