"""Retentions that are short for what a pipeline may have to remember. Pure. None of them breaks the promise by itself:
a lane stops, and says so, before it answers anything twice or skips anything in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from failsoft.topics.layout import DAY_MS, Existing, Role, Topic

STOP_MS = 7 * DAY_MS
"""A planned stop that must be no trouble: Kafka's own default of offsets.retention.minutes."""

_UNTIL_READ = {
    Role.INPUT: "events that were not read by then are lost",
    Role.SCORED: "lanes then know less of what was answered, if the group's offsets are lost",
    Role.DEAD: "dead letters that were not replayed by then are lost",
    Role.REPLAY: "replays that were not read by then are lost",
    Role.RETRY: "retries that were not read by then are lost",
}


def warnings(
    required: Sequence[Topic], existing: Mapping[str, Existing], offsets_ms: int | None
) -> dict[str, list[str]]:
    """What is short, by topic.

    Args:
        required: the pipeline's topics.
        existing: those that exist.
        offsets_ms: how long the cluster keeps the offsets of a group without members (ms); None if it does not say.
    """
    ladder_ms = sum(round(1000 * topic.delay) for topic in required)
    found: dict[str, list[str]] = {}
    for topic in required:
        there = existing.get(topic.name)
        if there is None or topic.role not in _UNTIL_READ:
            continue
        kept = int(there.configs.get("retention.ms", "-1"))
        if 0 <= kept < ladder_ms and topic.role is not Role.RETRY:
            found.setdefault(topic.name, []).append(
                f"retention.ms is {kept} ({_time(kept)}), less than the ladder's {_time(ladder_ms)}: an event may be "
                f"gone before its final answer"
            )
        elif 0 <= kept < STOP_MS:
            found.setdefault(topic.name, []).append(
                f"retention.ms is {kept} ({_time(kept)}): after a longer stop, {_UNTIL_READ[topic.role]}"
            )
    if offsets_ms is not None and offsets_ms < STOP_MS:
        for topic in required:
            if topic.role is Role.INPUT and topic.name in existing:
                found.setdefault(topic.name, []).append(
                    f"the broker's offsets.retention.minutes is {offsets_ms // 60_000}: after a longer stop of all "
                    f"workers the offsets are gone, lanes stop, and failsoft offsets repair --all settles it"
                )
    return found


def _time(ms: int) -> str:
    """A duration for people."""
    for size, unit in ((DAY_MS, "days"), (3_600_000, "hours"), (60_000, "minutes")):
        if ms >= 2 * size:
            return f"{ms / size:.3g} {unit}"
    return f"{ms / 1000:g} s"
