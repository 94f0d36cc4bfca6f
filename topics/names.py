"""A pipeline's topic names, and which of them a topic is."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_TOPIC = 249
"""Characters that Kafka allows a topic's name."""

LONGEST = 180
"""Characters of a pipeline's name: our suffixes keep every topic under LONGEST_TOPIC (a delay may be spelled in 62)."""

NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST - 1}}}$"
TOPIC_PATTERN = rf"^(?!\.{{1,2}}$)[A-Za-z0-9._-]{{1,{LONGEST_TOPIC}}}$"
"""The rules of ``check_name`` and ``check_topic`` for JSON Schemas."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOPIC = re.compile(rf"[A-Za-z0-9._-]{{1,{LONGEST_TOPIC}}}")


def check_name(name: str) -> None:
    """Raises ValueError, with what would be right, for a name that cannot prefix topics."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise ValueError(
            f"{name!r} cannot prefix topics: use letters, digits, '.', '_' and '-', a letter or digit first, "
            f"at most {LONGEST} characters"
        )


def check_topic(name: str) -> None:
    """Raises ValueError, with what would be right, for what Kafka would not take as a topic's name."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(
            f"{name!r} is no topic: use letters, digits, '.', '_' and '-', at most {LONGEST_TOPIC} characters"
        )


@dataclass(frozen=True, slots=True)
class Names:
    """The names that the pipeline ``pipeline`` owns."""

    pipeline: str

    @property
    def group(self) -> str:
        """The consumer group of its workers."""
        return self.pipeline

    @property
    def control_group(self) -> str:
        """The consumer group of its control plane: one member of it owns the breakers."""
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
    def breakers_changelog(self) -> str:
        return f"{self.pipeline}-breakers-changelog"

    @property
    def rollouts_changelog(self) -> str:
        return f"{self.pipeline}-rollouts-changelog"

    def retry(self, delay: str) -> str:
        """The rung of ``delay`` as the pipeline file writes it ("5s")."""
        return f"{self.pipeline}.retry.{delay}"

    def delay_of(self, topic: str) -> str | None:
        """The inverse of ``retry``; None for a topic that is no rung of this pipeline."""
        prefix = f"{self.pipeline}.retry."
        return topic[len(prefix) :] if topic.startswith(prefix) and len(topic) > len(prefix) else None

    def owns(self, topic: str) -> bool:
        """Is it one of this pipeline's own topics?"""
        fixed = {self.scored, self.dead, self.replay, self.outcomes, self.control, self.alerts}
        fixed |= {self.breakers_changelog, self.rollouts_changelog}
        return topic in fixed or self.delay_of(topic) is not None

    def transactional_id(self, partition: int) -> str:
        """The id of a lane's producer: whoever starts it fences the lane's previous owner."""
        return f"{self.pipeline}.{partition}"

    @property
    def replayer_id(self) -> str:
        """The transactional id of whoever replays dead letters: one at a time."""
        return f"{self.pipeline}.replayer"
