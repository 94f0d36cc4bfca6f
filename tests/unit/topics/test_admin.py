"""A topic is described by several brokers, and one of them may not have heard of it yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import UnknownTopicOrPartitionError

from failsoft.topics import admin
from failsoft.topics.layout import Existing


class Lagging:
    """A cluster with one topic of two partitions. The first ``behind`` answers of each kind do not know it."""

    def __init__(self, partitions: int = 0, configs: int = 0) -> None:
        self.behind = {"partitions": partitions, "configs": configs}

    def _knows(self, what: str) -> bool:
        self.behind[what] -= 1
        return self.behind[what] < 0

    async def list_topics(self) -> list[str]:
        return ["scored", "other"]

    async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        assert names == ["scored"]
        knows = self._knows("partitions")
        return [{"topic": "scored", "error_code": 0 if knows else 3, "partitions": [{}, {}] if knows else []}]

    async def describe_configs(self, resources: list[Any]) -> list[Any]:
        if self._knows("configs"):
            return [SimpleNamespace(resources=[(0, None, 2, "scored", [("cleanup.policy", "delete")])])]
        return [SimpleNamespace(resources=[(3, "unknown", 2, "scored", [])])]


@pytest.mark.parametrize("cluster", [Lagging(), Lagging(partitions=2), Lagging(configs=2), Lagging(1, 1)])
async def test_a_broker_that_lags_is_asked_again(cluster: Lagging) -> None:
    """A new topic is never taken for one without partitions, which ``topics apply`` would refuse."""
    found = await admin._existing(cluster, ["scored"])  # type: ignore[arg-type]
    assert found == {"scored": Existing("scored", 2, {"cleanup.policy": "delete"})}


async def test_a_topic_that_stays_unknown_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the topic."""
    monkeypatch.setattr(admin, "KNOWN_WITHIN", 0.0)
    with pytest.raises(UnknownTopicOrPartitionError, match="scored"):
        await admin._existing(Lagging(partitions=1_000), ["scored"])  # type: ignore[arg-type]
