"""Pure: the attempts that records of the pipeline's own topics carry, and which of their headers are not believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.event import origin_of
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.record import Record
from failsoft.topics.hold import plausible
from failsoft.workers.scoring.plan import Plan


def attempts_of(records: Sequence[Record], plan: Plan, now_ms: int) -> tuple[dict[int, Attempt], dict[int, Failure]]:
    """By row: the attempt of each record of a rung or of replay, and BAD_HEADER where its headers are not believed.

    A record of a rung counts as one attempt more. What can be read of bad headers is kept for the dead letter.
    """
    found: dict[int, Attempt] = {}
    failures: dict[int, Failure] = {}
    own = {t for t in {r.topic for r in records} if t in plan.rungs or t == plan.replay}
    for row, record in enumerate(records) if own else ():
        if record.topic not in own:
            continue
        read = attempts.parse(record.headers)
        if isinstance(read, Attempt):
            wrong = implausible(record, read, plan)
            if wrong is None:
                found[row] = replace(read, number=read.number + (1 if record.topic in plan.rungs else 0))
                continue
            read = Failure(Kind.BAD_HEADER, wrong)
        failures[row] = read
        found[row] = attempts.salvage(record.headers, read, origin_of(record), plan.primary, now_ms)
    return found, failures


def implausible(record: Record, attempt: Attempt, plan: Plan) -> str | None:
    """Why no worker wrote these headers on this record, or None."""
    if attempt.origin.partition != record.partition:
        return f"failsoft-origin-partition: {attempt.origin.partition}, on partition {record.partition}"
    delay = plan.rungs.get(record.topic)
    if delay is None:
        return None
    if attempt.due_ms is None:
        return "failsoft-due-ms: missing"
    if not plausible(attempt.due_ms, record.timestamp, delay):
        return f"failsoft-due-ms: {attempt.due_ms} is too far after the record's own time, {record.timestamp}"
    return None
