"""Why no connection to a broker can be set up: the cause of an error, and a sentence with the key to change. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
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


PASSING = frozenset({Cause.NO_BROKER, Cause.UNKNOWN_HOST, Cause.NO_ANSWER, Cause.CLOSED, Cause.WRONG_ADVERTISED})
"""Causes that also a restarting broker or a slow network has: a client tries again before it gives up. NO_TOKEN is not
one: a token's source is asked again by whoever starts the command again."""

SILENT = frozenset({Cause.NO_BROKER, Cause.UNKNOWN_HOST, Cause.NO_ANSWER})
"""Causes with which nothing at the address has answered."""

VAGUE = frozenset({Cause.CLOSED, Cause.WRONG_PROTOCOL, Cause.MECHANISM_OFF, Cause.OTHER})
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

    cause: Cause
    where: str
    text: str


_BY_CLASS = {
    "SaslAuthenticationFailed": Cause.LOGIN_REFUSED,
    "UnsupportedSaslMechanismError": Cause.MECHANISM_OFF,
    "IllegalSaslStateError": Cause.WRONG_PROTOCOL,
    "TokenUnavailable": Cause.NO_TOKEN,
    "gaierror": Cause.UNKNOWN_HOST,
    "ConnectionRefusedError": Cause.NO_BROKER,
    "TimeoutError": Cause.NO_ANSWER,
    "RequestTimedOutError": Cause.NO_ANSWER,
    "ConnectionResetError": Cause.CLOSED,
    "ConnectionAbortedError": Cause.CLOSED,
    "BrokenPipeError": Cause.CLOSED,
    "IncompleteReadError": Cause.CLOSED,
    "SSLEOFError": Cause.CLOSED,
    "SSLZeroReturnError": Cause.CLOSED,
}

# Parts of OpenSSL's texts, of asyncio's, and of the one error that aiokafka's SCRAM has of its own.
_BY_TEXT = {
    "hostname mismatch": Cause.WRONG_HOST_NAME,
    "ip address mismatch": Cause.WRONG_HOST_NAME,
    "certificate has expired": Cause.CERTIFICATE_EXPIRED,
    "certificate is not yet valid": Cause.CERTIFICATE_EXPIRED,
    "certificate verify failed": Cause.UNKNOWN_CA,
    "alert certificate required": Cause.NO_CLIENT_CERTIFICATE,
    "alert bad certificate": Cause.CLIENT_CERTIFICATE_REFUSED,
    "alert certificate unknown": Cause.CLIENT_CERTIFICATE_REFUSED,
    "alert certificate expired": Cause.CLIENT_CERTIFICATE_REFUSED,
    "alert certificate revoked": Cause.CLIENT_CERTIFICATE_REFUSED,
    "alert unsupported certificate": Cause.CLIENT_CERTIFICATE_REFUSED,
    "alert unknown ca": Cause.CLIENT_CERTIFICATE_REFUSED,
    "wrong version number": Cause.WRONG_PROTOCOL,
    "record layer failure": Cause.WRONG_PROTOCOL,
    "packet length too long": Cause.WRONG_PROTOCOL,
    "http request": Cause.WRONG_PROTOCOL,
    "unexpected eof": Cause.CLOSED,
    "server sent wrong signature": Cause.LOGIN_REFUSED,
    # Several addresses of one name: asyncio joins their errors in an OSError.
    "connect call failed": Cause.NO_BROKER,
    "network is unreachable": Cause.NO_BROKER,
    "no route to host": Cause.NO_BROKER,
}


def classify(errors: Sequence[tuple[str, str]]) -> Cause:
    """The cause of an error. ``errors``: class name and text of the error, of its cause, and so on."""
    for name, text in errors:
        words = text.lower().replace("_", " ")
        for part, cause in _BY_TEXT.items():
            if part in words:
                return cause
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    # aiokafka's own error of a lost connection. Its cause, if it has one, was looked at above.
    return Cause.CLOSED if any(name == "KafkaConnectionError" for name, _ in errors) else Cause.OTHER


def finding(cause: Cause, where: str, how: How, detail: str = "") -> Finding:
    """The finding for a cause. ``detail``: the error's text; for WRONG_PROTOCOL the listener's ``security_protocol``;
    for MECHANISM_OFF the offered mechanisms; for WRONG_ADVERTISED what is wrong with which address.
    """
    if cause is Cause.CLIENT_CERTIFICATE_REFUSED and not how.certfile:
        cause = Cause.NO_CLIENT_CERTIFICATE  # some brokers call a missing certificate a bad one
    return Finding(cause, where, f"{where}: {_sentence(cause, how, detail)}")


def _sentence(cause: Cause, how: How, detail: str) -> str:
    match cause:
        case Cause.NO_BROKER:
            return "no broker listens there (connection refused): start it, or correct kafka.bootstrap_servers"
        case Cause.UNKNOWN_HOST:
            return "the host name does not resolve: correct kafka.bootstrap_servers, or the name service"
        case Cause.NO_ANSWER:
            return "no answer in time: a firewall drops the connection, the broker hangs, or it is no Kafka"
        case Cause.CLOSED:
            return f"the broker closed the connection and did not say why; its log does ({_spoken(how)})"
        case Cause.WRONG_PROTOCOL if detail in PROTOCOLS.values():
            return (
                f"the listener speaks {detail}, and kafka.security_protocol is {how.protocol}: "
                f'set security_protocol = "{detail}", or use the port of another listener'
            )
        case Cause.WRONG_PROTOCOL:
            return f"what listens there does not speak Kafka's protocol over {how.protocol}: check the port ({detail})"
        case Cause.UNKNOWN_CA:
            trusted = f"kafka.ssl_cafile ({how.cafile})" if how.cafile else "the system's authorities (no ssl_cafile)"
            return (
                f"the broker's certificate is signed by an unknown authority, which is not in {trusted}: "
                f"set kafka.ssl_cafile to the PEM file of the authority ({detail})"
            )
        case Cause.WRONG_HOST_NAME:
            return (
                "the broker's certificate is not for this host name: use a name that is in the certificate in "
                f"kafka.bootstrap_servers and in the broker's advertised.listeners ({detail})"
            )
        case Cause.CERTIFICATE_EXPIRED:
            return f"the broker's certificate has expired, or is not valid yet: renew it, or check the clock ({detail})"
        case Cause.NO_CLIENT_CERTIFICATE:
            return "the broker wants a client certificate: set kafka.ssl_certfile and kafka.ssl_keyfile"
        case Cause.CLIENT_CERTIFICATE_REFUSED:
            return (
                f"the broker refuses the client certificate kafka.ssl_certfile ({how.certfile}): it has expired, or "
                f"its authority is not in the broker's ssl.truststore ({detail})"
            )
        case Cause.LOGIN_REFUSED if how.mechanism == "OAUTHBEARER":
            return f"the broker refuses the OAUTHBEARER token of kafka.sasl_oauth_*: {detail}"
        case Cause.LOGIN_REFUSED:
            return (
                f"the broker refuses the login by {how.mechanism}: wrong kafka.sasl_username ({how.username!r}) or "
                f"wrong password in FAILSOFT_KAFKA__SASL_PASSWORD ({detail})"
            )
        case Cause.MECHANISM_OFF:
            return (
                f"the listener does not offer kafka.sasl_mechanism {how.mechanism}"
                + (f": it offers {detail}" if detail else "")
                + "; set sasl_mechanism, or enable it on the broker (sasl.enabled.mechanisms)"
            )
        case Cause.NO_TOKEN:
            return f"no OAUTHBEARER token: {detail}"
        case Cause.WRONG_ADVERTISED:
            return (
                f"this server answers, but the brokers that it names cannot be reached: {detail}; correct the broker's "
                "advertised.listeners to addresses that its clients can reach"
            )
        case Cause.OTHER:
            return f"no connection by {_spoken(how)}: {detail}"


def _spoken(how: How) -> str:
    return f"{how.protocol} with {how.mechanism}" if how.protocol.startswith("SASL") else how.protocol
