"""Turns the keys of ``[kafka]`` into the options of all Kafka clients: addresses, TLS, login."""

from __future__ import annotations

import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from failsoft.schemas.config.refusal import Refused
from failsoft.workers.pipeline_sections import Kafka

if TYPE_CHECKING:
    from failsoft.topics.connection.oauth import TokenSource

FILE = "pipeline.toml"

SECRET_KEYS = ("sasl_password", "ssl_password", "sasl_oauth_client_secret")
"""Keys of ``[kafka]`` that only the environment may have."""

_SOURCES = ("sasl_oauth_token_command", "sasl_oauth_token_file", "sasl_oauth_token_endpoint")


def client_options(kafka: Kafka, folder: Path) -> dict[str, Any]:
    """Keyword arguments for every aiokafka client. Relative files are in ``folder``. Raises Refused."""
    if idle := list(_without_effect(kafka)):
        raise Refused(FILE, idle)
    found: dict[str, Any] = {"bootstrap_servers": kafka.bootstrap_servers, "security_protocol": kafka.security_protocol}
    if kafka.security_protocol.endswith("SSL"):
        found["ssl_context"] = _context(kafka, folder)
    if kafka.security_protocol.startswith("SASL"):
        found["sasl_mechanism"] = kafka.sasl_mechanism
        if kafka.sasl_mechanism == "OAUTHBEARER":
            found["sasl_oauth_token_provider"] = _tokens(kafka, folder)
        else:
            found |= _password(kafka)
    return found


def _without_effect(kafka: Kafka) -> Iterator[str]:
    """A line for each key that is set and would not be used: someone believes that the connection is secured by it."""
    protocol, endpoint = kafka.security_protocol, kafka.sasl_oauth_token_endpoint is not None
    for key in sorted(kafka.model_fields_set - set(SECRET_KEYS)):
        if getattr(kafka, key) is None:
            continue
        if key.startswith("ssl_") and not protocol.endswith("SSL") and not (key == "ssl_cafile" and endpoint):
            yield f"kafka.{key}: set, and kafka.security_protocol is {protocol}: TLS needs SSL or SASL_SSL"
        elif key.startswith("sasl_") and not protocol.startswith("SASL"):
            yield f"kafka.{key}: set, and kafka.security_protocol is {protocol}: a login needs SASL_SSL"
        elif key.startswith("sasl_oauth_") and kafka.sasl_mechanism != "OAUTHBEARER":
            yield f'kafka.{key}: set, and kafka.sasl_mechanism is {kafka.sasl_mechanism}: it needs "OAUTHBEARER"'


def _context(kafka: Kafka, folder: Path) -> ssl.SSLContext:
    # Imported here as below: commands that use no Kafka need neither.
    from failsoft.topics.connection.tls import PemContext, UnusablePem

    cafile, certfile, keyfile = (_file(kafka, key, folder) for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"))
    password = kafka.ssl_password.get_secret_value() if kafka.ssl_password else None
    try:
        return PemContext.of(cafile, certfile, keyfile, password)
    except UnusablePem as error:
        hint = "; set FAILSOFT_KAFKA__SSL_PASSWORD" if "password" in str(error) else ""
        raise Refused(FILE, [f"kafka.{error.key}: {error}{hint}"]) from None


def _file(kafka: Kafka, key: str, folder: Path) -> str:
    """The path of a key's file; empty if the key is not set. Raises Refused if there is no such file.

    A relative one is in ``folder``, or else in the working directory, as in former versions.
    """
    name = getattr(kafka, key)
    if not name:
        return ""
    found = next((path for path in (folder / name, Path.cwd() / name) if path.is_file()), None)
    if found is None:
        raise Refused(FILE, [f"kafka.{key}: {name}: no such file in {folder}"])
    return str(found)


def _password(kafka: Kafka) -> dict[str, str]:
    if not kafka.sasl_username:
        raise Refused(FILE, [f"kafka.sasl_username: missing; {kafka.sasl_mechanism} needs a user name"])
    if kafka.sasl_password is None:
        name = "FAILSOFT_KAFKA__SASL_PASSWORD"
        raise Refused("environment", [f"{name}: missing; {kafka.sasl_mechanism} needs a password"])
    return {
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password.get_secret_value(),
    }


def _tokens(kafka: Kafka, folder: Path) -> Any:
    from failsoft.topics.connection.oauth import TokenProvider

    return TokenProvider(_source(kafka, folder), _extensions(kafka.sasl_oauth_extensions or ""))


def _source(kafka: Kafka, folder: Path) -> TokenSource:
    """Where tokens come from. Raises Refused unless exactly one of the three is set, with all that it needs."""
    from failsoft.topics.connection import oauth

    named = [key for key in _SOURCES if getattr(kafka, key)]
    if len(named) != 1:
        said = f"{' and '.join(named)} are set" if named else "none is set"
        raise Refused(FILE, [f"kafka.{', '.join(_SOURCES)}: OAUTHBEARER needs exactly one of them, and {said}"])
    if command := kafka.sasl_oauth_token_command:
        try:
            return oauth.FromCommand(shlex.split(command))
        except ValueError as error:
            raise Refused(FILE, [f"kafka.sasl_oauth_token_command: {command!r} is no command: {error}"]) from None
    if kafka.sasl_oauth_token_file:
        return oauth.FromFile(Path(_file(kafka, "sasl_oauth_token_file", folder)))
    url = kafka.sasl_oauth_token_endpoint or ""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Refused(FILE, [f"kafka.sasl_oauth_token_endpoint: {url!r} is no http or https address"])
    if not kafka.sasl_oauth_client_id:
        raise Refused(FILE, ["kafka.sasl_oauth_client_id: missing; the token endpoint needs it"])
    if kafka.sasl_oauth_client_secret is None:
        name = "FAILSOFT_KAFKA__SASL_OAUTH_CLIENT_SECRET"
        raise Refused("environment", [f"{name}: missing; the token endpoint needs it"])
    return oauth.FromEndpoint(
        url,
        kafka.sasl_oauth_client_id,
        kafka.sasl_oauth_client_secret.get_secret_value(),
        kafka.sasl_oauth_scope or "",
        _endpoint_context(kafka, folder),
    )


def _endpoint_context(kafka: Kafka, folder: Path) -> ssl.SSLContext:
    """Verifies the endpoint with the system's authorities, and those of ``ssl_cafile``."""
    context = ssl.create_default_context()
    if kafka.ssl_cafile:
        try:
            context.load_verify_locations(_file(kafka, "ssl_cafile", folder))
        except OSError as error:
            raise Refused(FILE, [f"kafka.ssl_cafile: {kafka.ssl_cafile}: cannot be used: {error}"]) from None
    return context


def _extensions(text: str) -> dict[str, str]:
    """NAME=VALUE, separated by commas. Raises Refused."""
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.strip().partition("=")
        # RFC 7628, 3.1: a name is letters; `auth` is the token's own.
        if not (equals and value and name.isascii() and name.isalpha() and name != "auth"):
            raise Refused(FILE, [f"kafka.sasl_oauth_extensions: {part.strip()!r} is not NAME=VALUE"])
        found[name] = value
    return found
