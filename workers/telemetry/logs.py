"""Sets up a worker's log (JSON lines, or readable text on a terminal), and limits the rate of failures in it."""

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
# Characters. A model's error can quote a whole tensor, and thousands of such lines a minute add up. The header
# failsoft-error-message has the same limit.
_LONGEST_MESSAGE = 500


FOREIGN = ("aiokafka", "faust", "mode", "asyncio")
"""Libraries whose log lines are limited. In an outage of 20 s they wrote 41,000 lines."""


def configure(level: str = "info", stream: IO[str] | None = None, terminal: bool | None = None) -> None:
    """Send the log records of structlog and of the standard library, through the same processors, to one stream.

    Call it once, before anything logs. A second call replaces the first one's setup. Colours are left out when the
    environment variable ``NO_COLOR`` is set.

    Args:
        level: debug, info, warning, error or critical.
        stream: the stream to write to; stderr if None.
        terminal: write for a person instead of JSON; if None, whether the stream is a terminal decides.

    Raises:
        ValueError: if there is no such level.
    """
    out = sys.stderr if stream is None else stream
    people = out.isatty() if terminal is None else terminal
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is not a log level: use debug, info, warning, error or critical")

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
        # A traceback becomes a field of its line: further lines would not be JSON.
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
        # At info these libraries log each of their steps, about forty lines at a start.
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
        cache_logger_on_first_use=False,  # a logger that was used before this call must follow it afterwards
    )


def log_always(text: str, **fields: object) -> None:
    """Log a line whatever the level is, for facts that a worker reports once. Call it after ``configure``."""
    root = logging.getLogger()
    record = root.makeRecord("failsoft.worker", logging.INFO, __file__, 0, text, (), None, extra=fields)
    for handler in root.handlers:
        handler.handle(record)


def trace_id(traceparent: bytes | None) -> str | None:
    """The trace id of a W3C ``traceparent`` header, or None if the header is absent or not valid."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return match[1].decode() if match else None


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """A failure that changed one event's answer, as it is logged. No field holds a feature's value.

    Attributes:
        event_id: the event's id.
        origin: where the event was first read, as ``<topic>-<partition>-<offset>``.
        model: the primary's name.
        version: the primary's version, or None.
        kind: the failure kind.
        attempt: the number of retries so far; 0 at the first try.
        trace_id: the W3C trace id, or None.
        message: the failure's message.
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
    """The part of a structlog logger that this module uses."""

    def warning(self, event: str, **fields: object) -> object: ...


class FailureLog:
    """Logs one line for each failure, at most ``per_second`` lines a second for each (model, kind).

    The lines held back are counted. The next line of the same model and kind has the count as ``held_back``, and
    ``flush`` writes the counts that are left. The default of 5 shows what is wrong and with which events, and bounds a
    model that is broken all day to 430,000 lines. Raises ValueError if ``per_second`` is not positive.
    """

    def __init__(self, log: Log, per_second: float = 5.0) -> None:
        if not per_second > 0:
            raise ValueError(f"per_second must be positive, not {per_second}")
        self._log = log
        self._rate = per_second
        self._burst = max(1.0, per_second)  # the lines of one second may come at once: failures come in batches
        self._buckets: dict[tuple[str, str], _Bucket] = {}  # one for each (model, kind): a few dozen at most

    def failures(self, rows: Iterable[FailureRecord], now: float) -> None:
        """Log the failures of a batch; ``now`` is monotonic seconds."""
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
        """Count ``n`` more failures as held back. ``failures`` must have had a failure of this (model, kind)."""
        self._buckets[model, kind].held += n

    def flush(self) -> None:
        """Log the counts of lines held back, one line for each (model, kind). Call it at the end, or periodically."""
        for (model, kind), bucket in self._buckets.items():
            if bucket.held:
                held, bucket.held = bucket.held, 0
                self._log.warning("answers degraded, not listed", model=model, kind=str(kind), held_back=held)


class FewLines:
    """Logs at most ``per_second`` warnings a second. The next one has the count of those held back, ``held_back``."""

    def __init__(self, log: Log, per_second: float = 5.0) -> None:
        self._log, self._rate = log, per_second
        self._bucket: _Bucket | None = None

    def warning(self, event: str, now: float, **fields: object) -> None:
        """Log ``event``, or hold it back; ``now`` is monotonic seconds."""
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = _Bucket(self._rate, now)
        if not bucket.take(now, self._rate, self._rate):
            bucket.held += 1
            return
        held, bucket.held = bucket.held, 0
        self._log.warning(event, **fields, held_back=held)


class _Foreign(logging.Filter):
    """Limits the lines of FOREIGN libraries: of each kind, five at once and then one a second.

    A kind is the logger and the text before its values are filled in. The next line of the kind has the count of those
    held back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is written."""
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
    """A token bucket, and the count of lines that were held back (``held``)."""

    __slots__ = ("_at", "_tokens", "held")

    def __init__(self, tokens: float, now: float) -> None:
        self.held = 0
        self._tokens = tokens
        self._at = now

    def take(self, now: float, rate: float, burst: float) -> bool:
        """Whether a line may be written at ``now`` (seconds): refills ``rate`` tokens a second, at most ``burst``."""
        self._tokens = min(burst, self._tokens + max(0.0, now - self._at) * rate)
        self._at = max(self._at, now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
