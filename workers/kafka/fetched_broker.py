"""What the fetcher knows of one broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from failsoft.workers.kafka.fetch_marks import SessionMarks
from failsoft.workers.kafka.fetch_session import FetchSession


@dataclass(slots=True, eq=False)
class FetchedBroker:
    """One broker that is fetched from.

    Attributes:
        node: its id.
        session: the fetch session with it.
        marks: the high watermarks that it has told.
        wake: set when the session may have something to fetch.
        stale: the ids of topics have changed: the next request starts a session anew, and the answer that is under way
            does not count.
    """

    node: int
    session: FetchSession = field(default_factory=FetchSession)
    marks: SessionMarks = field(default_factory=SessionMarks)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    stale: bool = False

    def lose(self) -> None:
        """Start the session anew with the next request."""
        self.session.lost()
        self.marks.lost()
        self.stale = False
