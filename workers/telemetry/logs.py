"""How a worker logs: one JSON object a line (or, on a terminal, for people), and failures at a bounded rate."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Protocol

import structlog
from structlog.typing import Processor

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
# A message is for people; a model's exception can quote a tensor, and thousands of lines a minute add up. As long as
# the header that carries the same message.
_LONGEST_MESSAGE = 500


FOREIGN = ("aiokafka", "faust", "mode", "asyncio")
"""Libraries whose lines are not ours: in an outage of 20 s they wrote 41,000 of them."""


def configure(level: str = "info", stream: IO[str] | None = None, terminal: bool | None = None) -> None:
    """Sends structlog's and the standard library's records, through the same processors, to ``stream`` (stderr).

    ``terminal`` says whether a person reads along; by default the stream is asked. Colours are left out when
    ``NO_COLOR`` is set. Called once, before anything logs; called again, it starts afresh. Raises ValueError for a
    level that does not exist.
    """
    out = sys.stderr if stream is None else stream
    people = out.isatty() if terminal is None else terminal
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no log level is called {level!r}: debug, info, warning, error or critical")

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    finish: list[Processor]
    if people:
        finish = [structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))]
    else:
        # A traceback is part of its line: a second line would not be JSON.
        finish = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]

    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    handler.addFilter(_Foreign())
    for library in FOREIGN:
        # At info they tell of every step that they take, some forty lines a start.
        logging.getLogger(library).setLevel(logging.NOTSET if number <= logging.DEBUG else max(number, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a module's logger may be used before this is called, and must then obey it
    )


def news(text: str, **fields: object) -> None:
    """A line of the log that no level holds back: what a worker has to say of itself once. After ``configure``."""
    root = logging.getLogger()
    record = root.makeRecord("failsoft.worker", logging.INFO, __file__, 0, text, (), None, extra=fields)
    for handler in root.handlers:
        handler.handle(record)


def trace_id(traceparent: bytes | None) -> str | None:
    """The trace of a W3C ``traceparent`` header, or None when there is none or it is not one."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return found[1].decode() if found else None


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """A failure that changed one event's answer, as it is logged. No feature's value is among the fields.

    ``origin`` is ``<topic>-<partition>-<offset>``; ``attempt`` counts retries (0 is the first try).
    """

    event_id: str
    origin: str
    model: str
    version: int | None
    kind: str
    attempt: int
    trace_id: str | None
    message: str


class Log(Protocol):
    """As much of a structlog logger as is used here."""

    def warning(self, event: str, **fields: object) -> object: ...


class FailureLog:
    """One line a failure, but of each (model, kind) at most ``per_second`` a second; the rest are counted.

    Five: enough to see what is wrong and with which events, and no more than 430,000 lines a day from a model that is
    broken all day. The count, ``held_back``, is on the next line of the same model and kind that is let through;
    ``flush`` writes what is still held. Time is passed in (monotonic seconds).
    """

    def __init__(self, log: Log, per_second: float = 5.0) -> None:
        if not per_second > 0:
            raise ValueError(f"per_second must be positive, not {per_second}")
        self._log = log
        self._rate = per_second
        self._burst = max(1.0, per_second)  # a second's worth at once: failures come in batches
        self._buckets: dict[tuple[str, str], _Bucket] = {}  # one a model and kind: a few dozen at most

    def failures(self, rows: Iterable[FailureRecord], now: float) -> None:
        """A batch's failures."""
        for row in rows:
            key = (row.model, row.kind)
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = _Bucket(self._burst, now)
            if not bucket.take(now, self._rate, self._burst):
                bucket.held += 1
                continue
            held, bucket.held = bucket.held, 0
            self._log.warning(
                "answer degraded",
                event_id=row.event_id,
                origin=row.origin,
                model=row.model,
                version=row.version,
                kind=str(row.kind),
                attempt=row.attempt,
                trace_id=row.trace_id,
                message=row.message[:_LONGEST_MESSAGE],
                held_back=held,
            )

    def hold(self, model: str, kind: str, n: int) -> None:
        """``n`` more failures that were not even offered, of a (model, kind) that ``failures`` has seen."""
        self._buckets[model, kind].held += n

    def flush(self) -> None:
        """Says how many lines are still held back, one line a model and kind: at the end, or now and then."""
        for (model, kind), bucket in self._buckets.items():
            if bucket.held:
                held, bucket.held = bucket.held, 0
                self._log.warning("answers degraded, not listed", model=model, kind=str(kind), held_back=held)


class FewLines:
    """A warning that may come hundreds of times a second: at most ``per_second``, the next says how many were held."""

    def __init__(self, log: Log, per_second: float = 5.0) -> None:
        self._log, self._rate = log, per_second
        self._bucket: _Bucket | None = None

    def warning(self, event: str, now: float, **fields: object) -> None:
        """``now`` is monotonic seconds."""
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = _Bucket(self._rate, now)
        if not bucket.take(now, self._rate, self._rate):
            bucket.held += 1
            return
        held, bucket.held = bucket.held, 0
        self._log.warning(event, **fields, held_back=held)


class _Foreign(logging.Filter):
    """Lets through one line a second of each kind (logger and text before its values are filled in), after the first
    five, and says on the next how many were held back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Is this record written?"""
        if record.name.partition(".")[0] not in FOREIGN or not isinstance(record.msg, str):
            return True
        now = time.monotonic()
        bucket = self._buckets.setdefault((record.name, record.msg), _Bucket(5.0, now))
        if not bucket.take(now, 1.0, 5.0):
            bucket.held += 1
            return False
        if bucket.held:
            record.msg = f"{record.msg} ({bucket.held} more held back)"
            bucket.held = 0
        return True


class _Bucket:
    """A token bucket: so many lines may be written now, and so many are held back."""

    __slots__ = ("_at", "_tokens", "held")

    def __init__(self, tokens: float, now: float) -> None:
        self.held = 0
        self._tokens = tokens
        self._at = now

    def take(self, now: float, rate: float, burst: float) -> bool:
        self._tokens = min(burst, self._tokens + max(0.0, now - self._at) * rate)
        self._at = max(self._at, now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
