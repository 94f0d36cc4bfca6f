"""Pure: reads the attempts from the headers of records on the pipeline's own topics, and rejects invalid headers."""

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
    """The attempt of each record of a rung or of the replay topic, and BAD_HEADER failures, both by row.

    Reading a record from a rung counts as one more attempt. If the headers are invalid, the attempt has what can be
    read of them, for the dead letter. Headers on an input topic are never read: anyone may write them.
    """
    read_attempts: dict[int, Attempt] = {}
    failures: dict[int, Failure] = {}
    own = {t for t in {r.topic for r in records} if t in plan.rungs or t == plan.replay}
    for row, record in enumerate(records) if own else ():
        if record.topic not in own:
            continue
        parsed = attempts.parse(record.headers)
        if isinstance(parsed, Attempt):
            problem = implausible(record, parsed, plan)
            if problem is None:
                read_attempts[row] = replace(parsed, number=parsed.number + (1 if record.topic in plan.rungs else 0))
                continue
            parsed = Failure(Kind.BAD_HEADER, problem)
        failures[row] = parsed
        read_attempts[row] = attempts.salvage(record.headers, parsed, origin_of(record), plan.primary, now_ms)
    return read_attempts, failures


def implausible(record: Record, attempt: Attempt, plan: Plan) -> str | None:
    """Why no worker can have written these headers on this record, or None if one can."""
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
