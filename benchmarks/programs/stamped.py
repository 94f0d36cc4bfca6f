"""Lets a failsoft worker write answers that get the broker's timestamps, by which the rates are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from failsoft.topics import admin
from failsoft.topics.layout import TIMESTAMP_TYPE, Existing, Role, Topic, problems


def allow() -> None:
    """A worker starts although the broker stamps its answers, which it otherwise refuses."""

    def others(required: Sequence[Topic], existing: Mapping[str, Existing]) -> list[str]:
        return problems([_unstamped(topic) if topic.role is Role.SCORED else topic for topic in required], existing)

    admin.problems = others  # type: ignore[attr-defined]


def _unstamped(topic: Topic) -> Topic:
    return replace(topic, configs={key: value for key, value in topic.configs.items() if key != TIMESTAMP_TYPE})
