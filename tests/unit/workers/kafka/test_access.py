"""Which errors come from a missing right, and which right is named when the brokers cannot tell."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from failsoft.topics.admin import TopologyRefused
from failsoft.topics.rights import Operation, Right, Use
from failsoft.workers import settings
from failsoft.workers.kafka import access
from failsoft.workers.kafka.partition_errors import TOPIC_AUTHORIZATION_FAILED, partition_error
from failsoft.workers.kafka.request_errors import Code
from failsoft.workers.kafka.request_loop import RequestRefused
from failsoft.workers.kafka.topic_reader import NoSuchTopic
from failsoft.workers.settings import Settings

TP = TopicPartition("loans.scored", 0)


@pytest.fixture
def pipeline(tmp_path: Path) -> Settings:
    """A pipeline whose brokers are never asked."""
    file = tmp_path / "pipeline.toml"
    file.write_text('name = "loans"\nmodel = "m"\n[input]\ntopics = ["applications"]\n')
    return settings.load(file, {})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestRefused("Produce", Code.TOPIC_AUTHORIZATION_FAILED, TP), Code.TOPIC_AUTHORIZATION_FAILED),
        (partition_error(TOPIC_AUTHORIZATION_FAILED, TP), Code.TOPIC_AUTHORIZATION_FAILED),
        (GroupAuthorizationFailedError("loans"), Code.GROUP_AUTHORIZATION_FAILED),
        (TransactionalIdAuthorizationFailed("loans.w"), Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        (ClusterAuthorizationFailedError(), Code.CLUSTER_AUTHORIZATION_FAILED),
        (RequestRefused("Produce", Code.MESSAGE_TOO_LARGE, TP), None),
        (KafkaConnectionError("gone"), None),
        (ValueError("a bug"), None),
    ],
)
def test_the_code_of_a_refusal(error: Exception, code: Code | None) -> None:
    """Also where it is the cause of another error, as in a producer that is broken by it."""
    assert access.code_of(error) == code
    try:
        raise RuntimeError("the producer is broken") from error
    except RuntimeError as later:
        assert access.code_of(later) == code


async def test_only_what_a_missing_right_may_cause_is_asked_about(
    pipeline: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic that may not be seen looks as if it did not exist. Any other error is left as it is; nothing is asked."""
    asked: list[Collection[Right]] = []

    async def lacking(_: Settings, wanted: Collection[Right]) -> list[Right]:
        asked.append(wanted)
        return [right for right in wanted if right.operation is Operation.READ][:1]

    monkeypatch.setattr(access, "lacking", lacking)
    assert await access.explain(pipeline, Use.TAIL, KafkaConnectionError("gone")) is None and not asked
    for error in (NoSuchTopic("loans.scored"), TopologyRefused(["loans.scored: no such topic"])):
        refusal = await access.explain(pipeline, Use.TAIL, error)
        assert refusal is not None and refusal.lacking == (access.needed(pipeline, Use.TAIL)[0],)


async def test_a_topic_that_does_not_exist_stays_one(pipeline: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no right is missing, the error is what it says."""

    async def lacking(_: Settings, wanted: Collection[Right]) -> list[Right]:
        return []

    monkeypatch.setattr(access, "lacking", lacking)
    assert await access.explain(pipeline, Use.TAIL, NoSuchTopic("loans.scored")) is None


@pytest.mark.parametrize(
    ("error", "granted"),
    [
        (GroupAuthorizationFailedError("loans"), "--group loans"),
        (RequestRefused("InitProducerId", Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED), "--transactional-id loans."),
        (RequestRefused("InitProducerId", Code.CLUSTER_AUTHORIZATION_FAILED), "--operation IdempotentWrite --cluster"),
    ],
)
async def test_the_code_names_the_right_when_the_brokers_cannot(
    pipeline: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception, granted: str
) -> None:
    """Brokers tell nothing of writes by a transactional id; those before 2.8 want IdempotentWrite; some are away."""

    async def lacking(_: Settings, wanted: Collection[Right]) -> list[Right]:
        raise KafkaConnectionError("gone")

    monkeypatch.setattr(access, "lacking", lacking)
    refusal = await access.explain(pipeline, Use.WORKER, error)
    assert refusal is not None and granted in str(refusal)


async def test_a_refused_topic_without_an_answer_is_left_as_it_is(
    pipeline: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the topic, and the brokers do not say which operation is missing."""

    async def lacking(_: Settings, wanted: Collection[Right]) -> list[Right]:
        raise KafkaConnectionError("gone")

    monkeypatch.setattr(access, "lacking", lacking)
    assert await access.explain(pipeline, Use.WORKER, TopicAuthorizationFailedError("loans.scored")) is None


async def test_rights_that_were_not_checked_in_time_are_said(
    pipeline: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker goes on without the check, and its log says that there was none."""

    async def never(_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(access, "WITHIN", 0.01)
    monkeypatch.setattr(AIOKafkaClient, "bootstrap", never)
    assert await access.lacking(pipeline, access.needed(pipeline, Use.WORKER)) == []
    assert "the rights are not checked" in caplog.text
