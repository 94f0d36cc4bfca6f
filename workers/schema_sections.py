"""The sections of a pipeline file about schemas: where they are, and how answers are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, SecretStr

from failsoft.schemas.config.duration import seconds
from failsoft.schemas.config.key import means, written
from failsoft.workers.pipeline_sections import PORT, Duration, PipelineSection, Text

LONGEST_DEADLINE = 10.0
"""Seconds. A lane waits for a look-up, and one that makes no progress for 30 s counts as stuck and ends its worker."""


def _urls(text: str) -> str:
    urls = [part.strip().rstrip("/") for part in text.split(",")]
    for url in urls:
        if "@" in url:  # not shown: it may have a password
            raise ValueError(
                "an address with a user: write http://HOST:PORT without it, the user in username, and the password in "
                "the environment: FAILSOFT_SCHEMA_REGISTRY__PASSWORD"
            )
        if _URL.fullmatch(url) is None:
            raise ValueError(
                f"{url!r} is not an address of a registry: write http://HOST:PORT or https://HOST, or several"
            )
    return ",".join(urls)


_URL = re.compile(rf"https?://(?:\[[0-9A-Fa-f:.]+\]|[^\s,:/@?#\[\]]+)(?::{PORT})?(?:/[^\s,?#@]*)?")
_TOKEN = re.compile(r"[!-~]+")
"""Visible ASCII: a line break, as a file's last character, would end the request's header."""

URLS_PATTERN = rf"^\s*({_URL.pattern})\s*(,\s*({_URL.pattern})\s*)*$"


class SchemaRegistry(PipelineSection):
    """Where the schemas of events are, if events are Avro, Protobuf or JSON in Confluent's wire format."""

    url: Annotated[
        Annotated[str, AfterValidator(_urls), written(URLS_PATTERN)] | None,
        means(
            "The address of the schema registry (Confluent's API), or several of the same registry, comma-separated: "
            "the next one is asked where one does not answer.",
            "https://schemas-1:8081,https://schemas-2:8081",
            left_out="no registry",
        ),
    ] = None
    username: Annotated[
        Text | None, means("The user name for HTTP basic authentication.", "scoring", left_out="none is sent")
    ] = None
    password: Annotated[SecretStr | None, means("The password of `username`.", "…", left_out="an empty one")] = None
    bearer_token: Annotated[
        SecretStr | None, means("A token for HTTP bearer authentication.", "…", left_out="none is sent")
    ] = None
    ssl_cafile: Annotated[
        Text | None,
        means(
            "A PEM file with the certificates to verify an https registry with. Relative to this file's folder.",
            "ca.pem",
            left_out="the system's",
        ),
    ] = None
    deadline: Annotated[
        Duration, means("How long one look-up of a schema may take, over all addresses; at most 10s.", "500ms")
    ] = "1s"
    open_for: Annotated[
        Duration,
        means("How long the registry is not asked after look-ups failed. It doubles up to `max_open`.", "10s"),
    ] = "5s"
    max_open: Annotated[Duration, means("The longest time for which the registry is not asked.", "5m")] = "1m"

    def problems(self) -> Iterator[str]:
        """What does not fit together, each with its keys."""
        if self.username is not None and self.bearer_token is not None:
            yield "schema_registry.username and schema_registry.bearer_token: give one of them"
        if self.password is not None and self.username is None:
            yield "schema_registry.username: missing, but there is a password"
        if seconds(self.deadline) > LONGEST_DEADLINE:
            yield f"schema_registry.deadline: {self.deadline}; at most {LONGEST_DEADLINE:g}s, since events wait for it"
        if self.bearer_token is not None and _TOKEN.fullmatch(self.bearer_token.get_secret_value()) is None:
            yield "schema_registry.bearer_token: empty, or with a space or a line break, which a token does not have"
        if seconds(self.max_open) < seconds(self.open_for):
            yield f"schema_registry.max_open: {self.max_open}, shorter than schema_registry.open_for: {self.open_for}"


class ScoredOutput(PipelineSection):
    """How answers are written."""

    format: Annotated[
        Literal["json", "avro"],
        means(
            "How an answer's value is encoded. `avro`: in Confluent's wire format, by the schema `<name>.scored-value` "
            "that `failsoft topics apply` registers in `[schema_registry]`.",
            "avro",
        ),
    ] = "json"
