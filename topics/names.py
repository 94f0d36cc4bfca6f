"""A pipeline's topic names: derives them, and recognises them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from failsoft.schemas.config import duration

LONGEST_TOPIC = 249
"""Most characters that Kafka allows in a topic name."""

LONGEST = 180
"""Most characters of a pipeline's name. With it, every topic name stays within LONGEST_TOPIC (a delay may have 62)."""

NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}$"
TOPIC_PATTERN = rf"^(?!\.{{1,2}}$)[A-Za-z0-9._-]{{1,{LONGEST_TOPIC}}}$"
"""The rules of ``check_name`` and ``check_topic``, for JSON Schemas."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOPIC = re.compile(rf"[A-Za-z0-9._-]{{1,{LONGEST_TOPIC}}}")


def check_name(name: str) -> None:
    """Raises ValueError, which says what would be right, for a name that cannot prefix topics."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise ValueError(
            f"{name!r} cannot prefix topics: use letters, digits, '.', '_' and '-', a letter or digit first, "
            f"at most {LONGEST} characters"
        )


def check_topic(name: str) -> None:
    """Raises ValueError, which says what would be right, for a topic name that Kafka refuses."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(
            f"{name!r} is not a topic name: use letters, digits, '.', '_' and '-', at most {LONGEST_TOPIC} characters"
        )


@dataclass(frozen=True, slots=True)
class Names:
    """The names of topics, groups and transactional ids that belong to the pipeline ``pipeline``."""

    pipeline: str

    @property
    def group(self) -> str:
        """The consumer group of the workers."""
        return self.pipeline

    @property
    def control_group(self) -> str:
        """The consumer group of the control plane. One of its members is the owner of the breakers."""
        return f"{self.pipeline}.control-plane"

    @property
    def scored(self) -> str:
        return f"{self.pipeline}.scored"

    @property
    def dead(self) -> str:
        return f"{self.pipeline}.dead"

    @property
    def replay(self) -> str:
        return f"{self.pipeline}.replay"

    @property
    def outcomes(self) -> str:
        return f"{self.pipeline}.outcomes"

    @property
    def control(self) -> str:
        return f"{self.pipeline}.control"

    @property
    def alerts(self) -> str:
        return f"{self.pipeline}.alerts"

    @property
    def schemas(self) -> str:
        """The schemas that were met, if the pipeline has a schema registry."""
        return f"{self.pipeline}.schemas"

    @property
    def breakers_changelog(self) -> str:
        return f"{self.pipeline}-breakers-changelog"

    @property
    def rollouts_changelog(self) -> str:
        return f"{self.pipeline}-rollouts-changelog"

    def retry(self, delay: str) -> str:
        """The topic of a rung. ``delay`` is as the pipeline file writes it ("5s")."""
        return f"{self.pipeline}.retry.{delay}"

    def delay_of(self, topic: str) -> str | None:
        """The inverse of ``retry``; None for a topic that is not a rung of this pipeline.

        What follows ``.retry.`` must be a duration: another pipeline may be named ``<name>.retry.b``, and all of its
        topics begin so too.
        """
        prefix = f"{self.pipeline}.retry."
        delay = topic[len(prefix) :]
        try:
            duration.seconds(delay)
        except ValueError:
            return None
        return delay if topic.startswith(prefix) else None

    def owns(self, topic: str) -> bool:
        """True when ``topic`` is one of this pipeline's own topics."""
        fixed = {self.scored, self.dead, self.replay, self.outcomes, self.control, self.alerts, self.schemas}
        fixed |= {self.breakers_changelog, self.rollouts_changelog}
        return topic in fixed or self.delay_of(topic) is not None

    def transactional_id(self, worker_id: str) -> str:
        """The transactional id of a worker's producer. Starting it aborts what the worker's last process left open."""
        return f"{self.pipeline}.{worker_id}"

    @property
    def replayer_id(self) -> str:
        """The transactional id for replaying dead letters. It allows one replay at a time."""
        return f"{self.pipeline}.replayer"

    @property
    def operator_id(self) -> str:
        """The transactional id for orders that move committed offsets. It allows one at a time."""
        return f"{self.pipeline}.operator"
