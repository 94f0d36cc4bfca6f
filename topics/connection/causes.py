"""Why no connection to a broker can be set up: the cause of an error, and a sentence with the key to change. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Obstacle(StrEnum):
    """Why a connection fails. The names are values of a metric's label."""

    NO_BROKER = "no_broker"
    """Nothing listens at the address, or no network leads there."""

    UNKNOWN_HOST = "unknown_host"
    """The host name does not resolve."""

    NO_ANSWER = "no_answer"
    """The address takes connections, or drops them, and does not answer in time."""

    CLOSED = "closed"
    """The broker closed the connection and did not say why."""

    WRONG_PROTOCOL = "wrong_protocol"
    """The listener wants another ``security_protocol``, or does not speak Kafka's protocol."""

    UNKNOWN_CA = "unknown_ca"
    """The broker's certificate is not signed by an authority that the client trusts."""

    WRONG_HOST_NAME = "wrong_host_name"
    """The broker's certificate is for other host names."""

    CERTIFICATE_EXPIRED = "certificate_expired"
    """The broker's certificate is not valid at this time."""

    NO_CLIENT_CERTIFICATE = "no_client_certificate"
    """The broker wants a client certificate, and the client has none."""

    CLIENT_CERTIFICATE_REFUSED = "client_certificate_refused"
    """The broker does not accept the client's certificate."""

    LOGIN_REFUSED = "login_refused"
    """The broker does not accept the user name with the password, or the token."""

    MECHANISM_OFF = "mechanism_off"
    """The listener does not offer the SASL mechanism."""

    NO_TOKEN = "no_token"
    """The source of the OAUTHBEARER token gave none."""

    WRONG_ADVERTISED = "wrong_advertised"
    """The bootstrap server answers, but the addresses that it gives for the brokers cannot be reached."""

    OTHER = "other"
    """None of these; the error's own text has to do."""


PASSING = frozenset(
    {
        Obstacle.NO_BROKER,
        Obstacle.UNKNOWN_HOST,
        Obstacle.NO_ANSWER,
        Obstacle.CLOSED,
        Obstacle.WRONG_ADVERTISED,
    }
)
"""Causes that also a restarting broker or a slow network has: a client tries again before it gives up. NO_TOKEN is not
one: a token's source is asked again by whoever starts the command again."""

SILENT = frozenset({Obstacle.NO_BROKER, Obstacle.UNKNOWN_HOST, Obstacle.NO_ANSWER})
"""Causes with which nothing at the address has answered."""

VAGUE = frozenset({Obstacle.CLOSED, Obstacle.WRONG_PROTOCOL, Obstacle.MECHANISM_OFF, Obstacle.OTHER})
"""Causes of which another look at the listener may tell more."""

PROTOCOLS = {
    (False, False): "PLAINTEXT",
    (True, False): "SSL",
    (False, True): "SASL_PLAINTEXT",
    (True, True): "SASL_SSL",
}
"""``security_protocol`` by whether a listener speaks TLS, and whether it wants a login."""


@dataclass(frozen=True, slots=True)
class How:
    """How the client connects.

    Attributes:
        protocol: ``security_protocol``.
        mechanism: ``sasl_mechanism``.
        username: ``sasl_username``.
        cafile: ``ssl_cafile``; empty: the system's authorities.
        certfile: ``ssl_certfile``; empty: no client certificate.
    """

    protocol: str
    mechanism: str = ""
    username: str = ""
    cafile: str = ""
    certfile: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why one server cannot be used.

    Attributes:
        cause: the cause.
        where: HOST:PORT.
        text: a sentence with the address, the cause, and what to change.
    """

    cause: Obstacle
    where: str
    text: str


_BY_CLASS = {
    "SaslAuthenticationFailed": Obstacle.LOGIN_REFUSED,
    "UnsupportedSaslMechanismError": Obstacle.MECHANISM_OFF,
    "IllegalSaslStateError": Obstacle.WRONG_PROTOCOL,
    "TokenUnavailable": Obstacle.NO_TOKEN,
    "gaierror": Obstacle.UNKNOWN_HOST,
    "ConnectionRefusedError": Obstacle.NO_BROKER,
    "TimeoutError": Obstacle.NO_ANSWER,
    "RequestTimedOutError": Obstacle.NO_ANSWER,
    "ConnectionResetError": Obstacle.CLOSED,
    "ConnectionAbortedError": Obstacle.CLOSED,
    "BrokenPipeError": Obstacle.CLOSED,
    "IncompleteReadError": Obstacle.CLOSED,
    "SSLEOFError": Obstacle.CLOSED,
    "SSLZeroReturnError": Obstacle.CLOSED,
}

# Parts of OpenSSL's texts, of asyncio's, and of the one error that aiokafka's SCRAM has of its own.
_BY_TEXT = {
    "hostname mismatch": Obstacle.WRONG_HOST_NAME,
    "ip address mismatch": Obstacle.WRONG_HOST_NAME,
    "certificate has expired": Obstacle.CERTIFICATE_EXPIRED,
    "certificate is not yet valid": Obstacle.CERTIFICATE_EXPIRED,
    "certificate verify failed": Obstacle.UNKNOWN_CA,
    "alert certificate required": Obstacle.NO_CLIENT_CERTIFICATE,
    "alert bad certificate": Obstacle.CLIENT_CERTIFICATE_REFUSED,
    "alert certificate unknown": Obstacle.CLIENT_CERTIFICATE_REFUSED,
    "alert certificate expired": Obstacle.CLIENT_CERTIFICATE_REFUSED,
    "alert certificate revoked": Obstacle.CLIENT_CERTIFICATE_REFUSED,
    "alert unsupported certificate": Obstacle.CLIENT_CERTIFICATE_REFUSED,
    "alert unknown ca": Obstacle.CLIENT_CERTIFICATE_REFUSED,
    "wrong version number": Obstacle.WRONG_PROTOCOL,
    "record layer failure": Obstacle.WRONG_PROTOCOL,
    "packet length too long": Obstacle.WRONG_PROTOCOL,
    "http request": Obstacle.WRONG_PROTOCOL,
    "unexpected eof": Obstacle.CLOSED,
    "server sent wrong signature": Obstacle.LOGIN_REFUSED,
    # Several addresses of one name: asyncio joins their errors in an OSError.
    "connect call failed": Obstacle.NO_BROKER,
    "network is unreachable": Obstacle.NO_BROKER,
    "no route to host": Obstacle.NO_BROKER,
}


def classify(errors: Sequence[tuple[str, str]]) -> Obstacle:
    """The cause of an error. ``errors``: class name and text of the error, of its cause, and so on."""
    for name, text in errors:
        words = text.lower().replace("_", " ")
        for part, cause in _BY_TEXT.items():
            if part in words:
                return cause
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    # aiokafka's own error of a lost connection. Its cause, if it has one, was looked at above.
    return Obstacle.CLOSED if any(name == "KafkaConnectionError" for name, _ in errors) else Obstacle.OTHER


def finding(cause: Obstacle, where: str, how: How, detail: str = "") -> Finding:
    """The finding for a cause. ``detail``: the error's text; for WRONG_PROTOCOL the listener's ``security_protocol``;
    for MECHANISM_OFF the offered mechanisms; for WRONG_ADVERTISED what is wrong with which address.
    """
    if cause is Obstacle.CLIENT_CERTIFICATE_REFUSED and not how.certfile:
        cause = Obstacle.NO_CLIENT_CERTIFICATE  # some brokers call a missing certificate a bad one
    return Finding(cause, where, f"{where}: {_sentence(cause, how, detail)}")


def _sentence(cause: Obstacle, how: How, detail: str) -> str:
    match cause:
        case Obstacle.NO_BROKER:
            return "no broker listens there (connection refused): start it, or correct kafka.bootstrap_servers"
        case Obstacle.UNKNOWN_HOST:
            return "the host name does not resolve: correct kafka.bootstrap_servers, or the name service"
        case Obstacle.NO_ANSWER:
            return "no answer in time: a firewall drops the connection, the broker hangs, or it is no Kafka"
        case Obstacle.CLOSED:
            return f"the broker closed the connection and did not say why; its log does ({_spoken(how)})"
        case Obstacle.WRONG_PROTOCOL if detail in PROTOCOLS.values():
            return (
                f"the listener speaks {detail}, and kafka.security_protocol is {how.protocol}: "
                f'set security_protocol = "{detail}", or use the port of another listener'
            )
        case Obstacle.WRONG_PROTOCOL:
            return f"what listens there does not speak Kafka's protocol over {how.protocol}: check the port ({detail})"
        case Obstacle.UNKNOWN_CA:
            trusted = f"kafka.ssl_cafile ({how.cafile})" if how.cafile else "the system's authorities (no ssl_cafile)"
            return (
                f"the broker's certificate is signed by an unknown authority, which is not in {trusted}: "
                f"set kafka.ssl_cafile to the PEM file of the authority ({detail})"
            )
        case Obstacle.WRONG_HOST_NAME:
            return (
                "the broker's certificate is not for this host name: use a name that is in the certificate in "
                f"kafka.bootstrap_servers and in the broker's advertised.listeners ({detail})"
            )
        case Obstacle.CERTIFICATE_EXPIRED:
            return f"the broker's certificate has expired, or is not valid yet: renew it, or check the clock ({detail})"
        case Obstacle.NO_CLIENT_CERTIFICATE:
            return "the broker wants a client certificate: set kafka.ssl_certfile and kafka.ssl_keyfile"
        case Obstacle.CLIENT_CERTIFICATE_REFUSED:
            return (
                f"the broker refuses the client certificate kafka.ssl_certfile ({how.certfile}): it has expired, or "
                f"its authority is not in the broker's ssl.truststore ({detail})"
            )
        case Obstacle.LOGIN_REFUSED if how.mechanism == "OAUTHBEARER":
            return f"the broker refuses the OAUTHBEARER token of kafka.sasl_oauth_*: {detail}"
        case Obstacle.LOGIN_REFUSED:
            return (
                f"the broker refuses the login by {how.mechanism}: wrong kafka.sasl_username ({how.username!r}) or "
                f"wrong password in FAILSOFT_KAFKA__SASL_PASSWORD ({detail})"
            )
        case Obstacle.MECHANISM_OFF:
            return (
                f"the listener does not offer kafka.sasl_mechanism {how.mechanism}"
                + (f": it offers {detail}" if detail else "")
                + "; set sasl_mechanism, or enable it on the broker (sasl.enabled.mechanisms)"
            )
        case Obstacle.NO_TOKEN:
            return f"no OAUTHBEARER token: {detail}"
        case Obstacle.WRONG_ADVERTISED:
            return (
                f"this server answers, but the brokers that it names cannot be reached: {detail}; correct the broker's "
                "advertised.listeners to addresses that its clients can reach"
            )
        case Obstacle.OTHER:
            return f"no connection by {_spoken(how)}: {detail}"


def _spoken(how: How) -> str:
    return f"{how.protocol} with {how.mechanism}" if how.protocol.startswith("SASL") else how.protocol
