"""The sections of a pipeline file: their keys, what each means, its default, and what it may be."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from failsoft.schemas.config import duration
from failsoft.schemas.config.duration import seconds
from failsoft.schemas.config.key import means, written
from failsoft.topics.names import TOPIC_PATTERN, check_topic


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _no_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


# As aiokafka reads them: a name, a number or an IPv6 address, and a port unless it is Kafka's own.
_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(?::(\d{1,5}))?|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*")


def _servers(text: str) -> str:
    """A client that met these would end in an error that names no key."""
    _no_blank(text)
    servers = [part.strip() for part in text.split(",")]
    for server in servers:
        found = _SERVER.fullmatch(server)
        if found is None or not 0 < int(found[1] or 9092) < 65536:
            raise ValueError(f"{server!r} is no broker: write HOST:PORT, several with commas between")
    return ",".join(servers)


SERVERS_PATTERN = rf"^\s*({_SERVER.pattern})\s*(,\s*({_SERVER.pattern})\s*)*$"

Text = Annotated[str, AfterValidator(_no_blank), written(r"\S")]
Servers = Annotated[str, AfterValidator(_servers), written(SERVERS_PATTERN)]
Topic = Annotated[str, AfterValidator(lambda name: (check_topic(name), name)[1]), written(TOPIC_PATTERN)]
Duration = Annotated[str, AfterValidator(lambda length: (seconds(length), length)[1]), written(duration.PATTERN)]


class Kafka(Section):
    """How to reach the brokers; the names are aiokafka's and librdkafka's. Passwords come from the environment only."""

    bootstrap_servers: Annotated[
        Servers, means("The brokers to ask first, as HOST:PORT, with commas between.", "kafka-1:9092,kafka-2:9092")
    ] = "127.0.0.1:9092"
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        means("Whether the connection is encrypted (SSL), and whether the client logs in (SASL).", "SASL_SSL"),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        means("How the client logs in. Only with SASL.", "SCRAM-SHA-512"),
    ] = "PLAIN"
    sasl_username: Annotated[
        str | None, means("Who logs in.", "scoring", left_out="nobody; SASL is refused without it")
    ] = None
    sasl_password: Annotated[
        SecretStr | None, means("The password of `sasl_username`.", "…", left_out="SASL is refused without it")
    ] = None
    ssl_cafile: Annotated[
        str | None,
        means("The certificates that a broker's is checked with, a PEM file.", "ca.pem", left_out="the system's"),
    ] = None
    ssl_certfile: Annotated[
        str | None, means("The client's own certificate, a PEM file.", "client.pem", left_out="the client shows none")
    ] = None
    ssl_keyfile: Annotated[
        str | None,
        means("The key of `ssl_certfile`, a PEM file.", "client.key", left_out="it is in `ssl_certfile`"),
    ] = None
    ssl_password: Annotated[
        SecretStr | None, means("The password of `ssl_keyfile`.", "…", left_out="the key is not encrypted")
    ] = None
    replication: Annotated[
        int,
        Field(ge=0, le=32_767),
        means("Copies of each topic that `failsoft topics apply` creates. 0: three, or one a broker if fewer.", 3),
    ] = 0


class Input(Section):
    """What an event looks like, and where events come from."""

    topics: Annotated[
        list[Topic],
        Field(min_length=1),
        means("The topics with the events. All have the same number of partitions.", ["car-loans.events"]),
    ]
    format: Annotated[Literal["json"], means("How an event's value is encoded.", "json")] = "json"
    id: Annotated[
        Text | None,
        means(
            "The field with an event's id. The `ce_id` header comes before it.",
            "event_id",
            left_out="`<topic>-<partition>-<offset>` is the id",
        ),
    ] = None
    time: Annotated[
        Text | None,
        means(
            "The field with an event's time, as ISO 8601. The `ce_time` header comes before it.",
            "occurred_at",
            left_out="the record's timestamp is the time",
        ),
    ] = None
    features: Annotated[
        str, means('The field whose object holds the features. `""`: they are in the event itself.', "payload", "")
    ] = "features"
    max_bytes: Annotated[
        int, Field(ge=1, le=16_000_000), means("Bytes of an event's value; a larger one is `malformed`.", 200_000)
    ] = 1_000_000
    partitions: Annotated[
        int, Field(ge=1, le=10_000), means("Partitions of an input topic that `failsoft topics apply` creates.", 12)
    ] = 4


class Retry(Section):
    """The ladder: one topic a delay."""

    delays: Annotated[
        list[Duration],
        means(
            "How long a failed event waits for each retry, rising; a topic each. Empty: no retries.",
            ["1m", "10m", "1h"],
            [],
        ),
    ] = ["5s", "30s", "5m"]
    # A tenth each way spreads what failed together, and is small enough for a rung to stay nearly in due order.
    jitter: Annotated[float, Field(ge=0, lt=1), means("How far chance moves each wait: 0.1 is ±10 %.", 0.05)] = 0.1

    @field_validator("delays")
    @classmethod
    def _rising(cls, delays: list[str]) -> list[str]:
        waits = [seconds(d) for d in delays]
        if any(b <= a for a, b in itertools.pairwise(waits)):
            raise ValueError(f"delays must rise from rung to rung: {delays}")
        return delays

    @property
    def rungs(self) -> tuple[tuple[str, float], ...]:
        """(name, seconds) a rung."""
        return tuple((d, seconds(d)) for d in self.delays)


class Models(Section):
    """Where the model repository is, and what proving a version may take."""

    repository: Annotated[
        Text,
        means(
            "The folder of the model repository. A relative path starts at this file's folder.", "../models/repository"
        ),
    ] = "models/repository"
    # failsoft.models.vetting.gate.Limits has the reasons for these two.
    vetting_memory_mb: Annotated[
        int,
        Field(ge=1),
        means("Megabytes for proving a version, beside the runtime and six times the model's file.", 2048),
    ] = 512
    vetting_time: Annotated[
        Duration, means("How long proving a version may take; half of it on the processor.", "2m")
    ] = "60s"
