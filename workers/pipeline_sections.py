"""The sections of a pipeline file: the meaning, default and allowed values of each key."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from failsoft.schemas.config import duration, size
from failsoft.schemas.config.duration import seconds
from failsoft.schemas.config.key import means, written
from failsoft.schemas.config.size import bytes_of
from failsoft.topics.names import TOPIC_PATTERN, check_topic
from failsoft.workers.client_timeouts import ClientTimeouts


class PipelineSection(BaseModel):
    """A table of pipeline.toml: an unknown key is refused, and no value is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _no_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


# 1 to 65535. Written without named parts, since a JSON Schema contains it.
PORT = r"(?!0+(?![0-9]))(?:[0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

# The forms that aiokafka accepts: a host name, an IPv4 or an IPv6 address, with an optional port.
_SERVER = re.compile(rf"(?:\[[0-9A-Fa-f:.]+\]|[^\s,:\[\]]+)(?::{PORT})?|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*")


def _servers(text: str) -> str:
    """Check broker addresses here, because the client's own error would not name the key."""
    _no_blank(text)
    servers = [part.strip() for part in text.split(",")]
    for server in servers:
        if _SERVER.fullmatch(server) is None:
            raise ValueError(
                f"{server!r} is not a broker address: write HOST:PORT, separated by commas, with a port from 1 to 65535"
            )
    return ",".join(servers)


SERVERS_PATTERN = rf"^\s*({_SERVER.pattern})\s*(,\s*({_SERVER.pattern})\s*)*$"

Text = Annotated[str, AfterValidator(_no_blank), written(r"\S")]
Servers = Annotated[str, AfterValidator(_servers), written(SERVERS_PATTERN)]
Topic = Annotated[str, AfterValidator(lambda name: (check_topic(name), name)[1]), written(TOPIC_PATTERN)]
Size = Annotated[str, AfterValidator(lambda amount: (bytes_of(amount), amount)[1]), written(size.PATTERN)]
Duration = Annotated[str, AfterValidator(lambda length: (seconds(length), length)[1]), written(duration.PATTERN)]


class Kafka(PipelineSection):
    """How to reach the brokers. Keys are named as in aiokafka and librdkafka. Set passwords in the environment only."""

    bootstrap_servers: Annotated[
        Servers, means("The brokers to connect to first, as HOST:PORT, comma-separated.", "kafka-1:9092,kafka-2:9092")
    ] = "127.0.0.1:9092"
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        means("Whether the connection is encrypted (SSL), and whether the client logs in (SASL).", "SASL_SSL"),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
        means("How the client logs in. Only with SASL.", "SCRAM-SHA-512"),
    ] = "PLAIN"
    sasl_username: Annotated[
        str | None,
        means("The user name for PLAIN and SCRAM.", "scoring", left_out="none; they are refused without it"),
    ] = None
    sasl_password: Annotated[
        SecretStr | None, means("The password of `sasl_username`.", "…", left_out="PLAIN and SCRAM are refused")
    ] = None
    sasl_oauth_token_command: Annotated[
        Text | None,
        means(
            "OAUTHBEARER: a command that prints a token. It is run without a shell.",
            "gcloud auth print-access-token",
            left_out="another source; exactly one of command, file and endpoint",
        ),
    ] = None
    sasl_oauth_token_file: Annotated[
        Text | None,
        means("OAUTHBEARER: a file with a token, read for each connection.", "token.jwt", left_out="another source"),
    ] = None
    sasl_oauth_token_endpoint: Annotated[
        Text | None,
        means(
            "OAUTHBEARER: an OIDC token endpoint, asked by client credentials. https is verified with the system's "
            "authorities and those of `ssl_cafile`.",
            "https://login.example.com/token",
            left_out="another source",
        ),
    ] = None
    sasl_oauth_client_id: Annotated[
        Text | None, means("The client id for the endpoint.", "scoring", left_out="the endpoint is refused without it")
    ] = None
    sasl_oauth_client_secret: Annotated[
        SecretStr | None, means("The secret of `sasl_oauth_client_id`.", "…", left_out="the endpoint is refused")
    ] = None
    sasl_oauth_scope: Annotated[
        Text | None, means("The scope that the endpoint is asked for.", "kafka", left_out="none is asked for")
    ] = None
    sasl_oauth_extensions: Annotated[
        Text | None,
        means(
            "SASL extensions that are sent with each token: NAME=VALUE, separated by commas.",
            "logicalCluster=lkc-1,identityPoolId=pool-1",
            left_out="none",
        ),
    ] = None
    ssl_cafile: Annotated[
        str | None,
        means(
            "A PEM file with the certificates to verify brokers with. This path and the next two are relative to this "
            "file's folder.",
            "ca.pem",
            left_out="the system's",
        ),
    ] = None
    ssl_certfile: Annotated[
        str | None, means("A PEM file with the client's own certificate.", "client.pem", left_out="no certificate")
    ] = None
    ssl_keyfile: Annotated[
        str | None,
        means("A PEM file with the key of `ssl_certfile`.", "client.key", left_out="the key is in `ssl_certfile`"),
    ] = None
    ssl_password: Annotated[
        SecretStr | None, means("The password of `ssl_keyfile`.", "…", left_out="the key is not encrypted")
    ] = None
    replication: Annotated[
        int,
        Field(ge=0, le=32_767),
        means("Replicas of each topic that `failsoft topics apply` creates. 0: three, or one per broker if fewer.", 3),
    ] = 0
    compression: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"],
        means("The codec of the records that workers and replays write. Topics are read in any codec.", "zstd"),
    ] = "lz4"
    session_timeout: Annotated[
        Duration,
        means(
            "The group gives a silent worker's partitions away after this. The broker bounds it with "
            "`group.min.session.timeout.ms` and `group.max.session.timeout.ms`.",
            "10s",
        ),
    ] = "6s"
    heartbeat_interval: Annotated[
        Duration, means("The time between two heartbeats. At most a third of `session_timeout`.", "2s")
    ] = "1s"
    rebalance_timeout: Annotated[
        Duration | None,
        means(
            "How long a rebalance waits for a worker that commits its last batches.",
            "60s",
            left_out="30 s, or longer where `session_timeout` or `transaction_timeout` needs it",
        ),
    ] = None
    request_timeout: Annotated[
        Duration | None,
        means(
            "How long the producer waits for an answer; other clients wait for a fixed multiple of it.",
            "2s",
            left_out="2.5 s, or less where `transaction_timeout` has no room for three",
        ),
    ] = None
    transaction_timeout: Annotated[
        Duration,
        means("The broker aborts an older transaction. The broker bounds it with `transaction.max.timeout.ms`.", "20s"),
    ] = "8s"
    fetch_max_bytes: Annotated[
        Size, means("The most bytes of one answer of a broker. It bounds a worker's memory for each broker.", "16MiB")
    ] = "8MiB"
    max_partition_fetch_bytes: Annotated[
        Size, means("The most bytes of one partition in an answer. A larger batch comes whole.", "512KiB")
    ] = "2MiB"
    client_rack: Annotated[
        Text | None,
        means(
            "The worker's rack or zone. Brokers with a `replica.selector.class` then name a replica in it.",
            "eu-central-1a",
            left_out="partitions are read from their leaders",
        ),
    ] = None

    @property
    def timeouts(self) -> ClientTimeouts:
        """The timeouts of a worker's clients, of which ``problems`` says what does not fit."""
        session, transaction = seconds(self.session_timeout), seconds(self.transaction_timeout)
        given = ClientTimeouts(session, seconds(self.heartbeat_interval), transaction=transaction)
        least = max(given.rebalance, session, given.drain + 4.0)
        return replace(
            given,
            rebalance=seconds(self.rebalance_timeout) if self.rebalance_timeout else least,
            request=seconds(self.request_timeout) if self.request_timeout else min(given.request, transaction / 3.2),
        )

    def problems(self) -> Iterator[str]:
        """What does not fit together, each with its keys."""
        yield from self.timeouts.problems()
        answer, partition = bytes_of(self.fetch_max_bytes), bytes_of(self.max_partition_fetch_bytes)
        if not LEAST_FETCH <= partition <= answer <= MOST_FETCH:
            yield (
                f"kafka.max_partition_fetch_bytes: {self.max_partition_fetch_bytes}, and kafka.fetch_max_bytes: "
                f"{self.fetch_max_bytes}: must rise from at least {size.text(LEAST_FETCH)} to at most "
                f"{size.text(MOST_FETCH)}"
            )


LEAST_FETCH, MOST_FETCH = 16 * 1024, 256 * 1_048_576
"""Bytes of a fetch: below, each record would be a request of its own; above, a worker's memory would not be bounded."""


InputFormat = Literal["json", "avro", "protobuf"]


class Input(PipelineSection):
    """Where events come from, and their format."""

    topics: Annotated[
        list[Topic],
        Field(min_length=1),
        means(
            "The topics with the events. All must have the same number of partitions.",
            ["car-loans.events"],
            uniqueItems=True,
        ),
    ]
    format: Annotated[
        InputFormat,
        means(
            "How an event's value is encoded. `avro` and `protobuf`: in Confluent's wire format, with the schemas of "
            "`[schema_registry]`. `json`: with or without Confluent's five bytes before it.",
            "avro",
        ),
    ] = "json"
    id: Annotated[
        Text | None,
        means(
            "The field with an event's id: a path with dots. A name that has dots itself is found first. A `ce_id` "
            "header takes precedence.",
            "event_id",
            "payload.source.id",
            left_out="`<topic>-<partition>-<offset>` is the id",
        ),
    ] = None
    time: Annotated[
        Text | None,
        means(
            "The field with an event's time: a path with dots. The time is in ISO 8601, or an epoch number in seconds "
            "if it is under 10^11, milliseconds under 10^14, microseconds under 10^17, else nanoseconds. The record's "
            "timestamp stands in for one that cannot be read, which is logged and counted "
            "(`failsoft_unreadable_times_total`). A `ce_time` header takes precedence.",
            "occurred_at",
            "payload.ts_ms",
            left_out="the record's timestamp is the time",
        ),
    ] = None
    features: Annotated[
        str,
        means(
            'The field whose object holds the features: a path with dots. `""`: the event itself holds them.',
            "payload.after",
            "",
        ),
    ] = "features"
    max_bytes: Annotated[
        int,
        Field(ge=1, le=16_000_000),
        means("Most bytes of an event's value. A larger event is `malformed`.", 200_000),
    ] = 1_000_000
    tombstones: Annotated[
        Literal["dead", "ignore"],
        means(
            "What becomes of a record without a value, by which a compacted topic deletes a key: `dead` makes it a "
            "`malformed` dead letter, `ignore` counts it and goes on.",
            "ignore",
        ),
    ] = "dead"
    partitions: Annotated[
        int, Field(ge=1, le=10_000), means("Partitions of an input topic that `failsoft topics apply` creates.", 12)
    ] = 4


class Retry(PipelineSection):
    """The retry ladder. Each delay is a rung with its own topic."""

    delays: Annotated[
        list[Duration],
        means(
            "How long a failed event waits before each retry, rising. Each delay has its own topic. Empty: no retries.",
            ["1m", "10m", "1h"],
            [],
        ),
    ] = ["5s", "30s", "5m"]
    # A tenth each way spreads events that failed together, and is small enough to keep a rung nearly in due order.
    jitter: Annotated[float, Field(ge=0, lt=1), means("Random variation of each wait: 0.1 is ±10 %.", 0.05)] = 0.1

    @field_validator("delays")
    @classmethod
    def _rising(cls, delays: list[str]) -> list[str]:
        waits = [seconds(d) for d in delays]
        if any(b <= a for a, b in itertools.pairwise(waits)):
            raise ValueError(f"delays must rise from rung to rung: {delays}")
        return delays

    @property
    def rungs(self) -> tuple[tuple[str, float], ...]:
        """The rungs as (name, seconds)."""
        return tuple((d, seconds(d)) for d in self.delays)


class Models(PipelineSection):
    """The model repository, and the limits of vetting a version."""

    repository: Annotated[
        Text,
        means(
            "The folder of the model repository. A relative path is relative to this file's folder.",
            "../models/repository",
        ),
    ] = "models/repository"
    # failsoft.models.vetting.bounded_process.Limits explains these two defaults.
    vetting_memory_mb: Annotated[
        int,
        Field(ge=1),
        means(
            "Megabytes for vetting a version, in addition to the runtime and six times the size of the model file.",
            2048,
        ),
    ] = 512
    vetting_time: Annotated[
        Duration, means("How long vetting a version may take. At most half of it may be CPU time.", "2m")
    ] = "60s"
