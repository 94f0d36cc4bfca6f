"""Finds out why no connection to Kafka can be set up: connects to each server itself and keeps the errors.

aiokafka logs these errors, and raises one that has none of them. It runs after a failed connection only.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from failsoft.topics.connection.causes import PROTOCOLS, VAGUE, Finding, How, Obstacle, classify, finding
from failsoft.topics.connection.tls import PemContext

CONNECT_MS = 3_000
"""Milliseconds for a connection and for each answer on it. A login takes at most 100 ms more than a round trip."""

LOOK_MS = 1_500
"""Milliseconds for each step of another look at a listener that gave no reason."""

MOST_BROKERS = 5
"""Brokers of a cluster to connect to. What is wrong with these is wrong with all."""

ILLEGAL_SASL_STATE = 34
"""The error code of a listener without a login for a SASL request."""

# aiokafka raises ValueError and AssertionError for what is no answer of Kafka's.
_FAILED = (OSError, KafkaError, asyncio.TimeoutError, EOFError, ValueError, AssertionError)


async def diagnose(connection: Mapping[str, Any]) -> list[Finding]:
    """Why the servers of ``bootstrap_servers`` cannot be used, for each; empty if any can. Takes at most some seconds.

    connection: keyword arguments of aiokafka's clients.
    """
    options = {key: value for key, value in connection.items() if key != "bootstrap_servers"}
    servers = collect_hosts(connection["bootstrap_servers"], randomize=False)
    found = await asyncio.gather(*(_server(host, port, options) for host, port, _ in servers))
    return [] if None in found else [each for each in found if each is not None]


def how(connection: Mapping[str, Any]) -> How:
    """What of the clients' settings the sentences name."""
    protocol, context = connection.get("security_protocol", "PLAINTEXT"), connection.get("ssl_context")
    files = (context.cafile, context.certfile) if isinstance(context, PemContext) else ("", "")
    return How(protocol, connection.get("sasl_mechanism", ""), connection.get("sasl_plain_username") or "", *files)


def chain(error: BaseException | None) -> list[tuple[str, str]]:
    """Class names and texts of an error and of its causes."""
    found: list[tuple[str, str]] = []
    while error is not None and len(found) < 10:
        found.append((type(error).__name__, str(error)))
        error = error.__cause__ or error.__context__
    return found


def quick(host: str, port: int, error: BaseException, connection: Mapping[str, Any]) -> Finding:
    """The finding for an error of ``create_conn``, without another look at the listener."""
    errors = chain(error)
    return finding(classify(errors), _where(host, port), how(connection), _detail(errors))


async def explain(host: str, port: int, error: BaseException, options: Mapping[str, Any]) -> Finding:
    """The same after another look, if the error alone is vague."""
    found = quick(host, port, error, options)
    return await _look(host, port, options, found) if found.cause in VAGUE else found


async def _server(host: str, port: int, options: Mapping[str, Any]) -> Finding | None:
    """Why one bootstrap server cannot be used; None if it can."""
    try:
        connection = await _connect(host, port, options)
    except _FAILED as error:
        return await explain(host, port, error, options)
    try:
        metadata = await connection.send(MetadataRequest([]))
    except _FAILED as error:
        return await explain(host, port, error, options)
    finally:
        connection.close()
    brokers = [(broker[0], broker[1], broker[2]) for broker in metadata.brokers[:MOST_BROKERS]]
    tried = await asyncio.gather(*(_broker(*broker, options) for broker in brokers))
    if not brokers or None in tried:  # no broker yet: it has just started
        return None
    network = [each for each in tried if each is not None and each.cause in (Obstacle.NO_BROKER, Obstacle.UNKNOWN_HOST)]
    wrong = network or [each for each in tried if each is not None and each.cause is Obstacle.NO_ANSWER]
    if not wrong:
        return tried[0]
    named = ", ".join(f"{each.where} ({each.cause.replace('_', ' ')})" for each in wrong)
    return finding(Obstacle.WRONG_ADVERTISED, _where(host, port), how(options), named)


async def _broker(node: int, host: str, port: int, options: Mapping[str, Any]) -> Finding | None:
    """Why a broker cannot be reached at the address that the cluster gives for it; None if it can."""
    try:
        (await _connect(host, port, options)).close()
    except _FAILED as error:
        return quick(host, port, error, options)
    return None


async def _connect(host: str, port: int, options: Mapping[str, Any], timeout_ms: int = CONNECT_MS) -> Any:
    """A connection that has asked for the broker's versions, and logged in."""
    return await create_conn(host, port, client_id="failsoft-diagnosis", request_timeout_ms=timeout_ms, **options)


async def _look(host: str, port: int, options: Mapping[str, Any], vague: Finding) -> Finding:
    """A closer look at a listener: does it speak TLS, does it want a login, and by which mechanisms?"""
    ours = how(options)
    for tls in (False, True):
        spoken = {"security_protocol": "SSL", "ssl_context": _trusting(options)} if tls else {}
        try:
            connection = await _connect(host, port, spoken, LOOK_MS)
        except _FAILED as error:
            cause = classify(chain(error))
            if cause in (Obstacle.NO_CLIENT_CERTIFICATE, Obstacle.CLIENT_CERTIFICATE_REFUSED) or (
                tls and ours.protocol == "SSL" and not ours.certfile and await _greets(host, port, options)
            ):
                # It speaks TLS, and ends the connection when no certificate comes.
                other = not ours.protocol.endswith("SSL")
                wrong = Obstacle.WRONG_PROTOCOL if other else Obstacle.NO_CLIENT_CERTIFICATE
                return finding(wrong, vague.where, ours, "SSL" if other else "")
            continue
        try:
            answer = await connection.send(SaslHandShakeRequest(ours.mechanism or "PLAIN"))
        except _FAILED:
            return vague
        finally:
            connection.close()
        protocol = PROTOCOLS[tls, answer.error_code != ILLEGAL_SASL_STATE]
        if protocol != ours.protocol:
            return finding(Obstacle.WRONG_PROTOCOL, vague.where, ours, protocol)
        if ours.mechanism and ours.protocol.startswith("SASL") and ours.mechanism not in answer.enabled_mechanisms:
            offered = ", ".join(answer.enabled_mechanisms)
            return finding(Obstacle.MECHANISM_OFF, vague.where, ours, offered)
        return vague
    return vague


async def _greets(host: str, port: int, options: Mapping[str, Any]) -> bool:
    """Does a listener complete a TLS handshake with this client's settings?"""
    try:
        async with asyncio.timeout(LOOK_MS / 1000):
            _, writer = await asyncio.open_connection(host, port, ssl=_trusting(options))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _trusting(options: Mapping[str, Any]) -> ssl.SSLContext:
    """A context that verifies nothing, to learn whether a listener speaks TLS at all. No password is sent on it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _detail(errors: list[tuple[str, str]]) -> str:
    """The text of the innermost error that has one. KafkaError puts its class before its text."""
    return next((text.removeprefix(f"{name}: ") for name, text in reversed(errors) if text), errors[0][0])
