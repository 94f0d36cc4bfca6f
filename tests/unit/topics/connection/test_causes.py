"""The cause of an error, and the sentence for it."""

from __future__ import annotations

import pytest

from failsoft.topics.connection.causes import PASSING, How, Obstacle, classify, finding

VERIFY = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
LOST = ("KafkaConnectionError", "KafkaConnectionError: Connection at a:1 closed")
CASES = [
    ([("ConnectionRefusedError", "[Errno 111] Connection refused")], Obstacle.NO_BROKER),
    ([("OSError", "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0)")], Obstacle.NO_BROKER),
    ([("OSError", "[Errno 113] No route to host")], Obstacle.NO_BROKER),
    ([("gaierror", "[Errno -2] Name or service not known")], Obstacle.UNKNOWN_HOST),
    ([("TimeoutError", "")], Obstacle.NO_ANSWER),
    ([LOST], Obstacle.CLOSED),
    ([LOST, ("IncompleteReadError", "0 bytes read on a total of 4 expected bytes")], Obstacle.CLOSED),
    ([LOST, ("ConnectionResetError", "[Errno 104] Connection reset by peer")], Obstacle.CLOSED),
    ([("SSLEOFError", "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation")], Obstacle.CLOSED),
    ([("SSLError", "[SSL: WRONG_VERSION_NUMBER] wrong version number")], Obstacle.WRONG_PROTOCOL),
    ([("IllegalSaslStateError", "[Error 34]")], Obstacle.WRONG_PROTOCOL),
    (
        [("SSLCertVerificationError", VERIFY + "self-signed certificate in certificate chain")],
        Obstacle.UNKNOWN_CA,
    ),
    ([("SSLCertVerificationError", VERIFY + "Hostname mismatch, not valid for 'a'")], Obstacle.WRONG_HOST_NAME),
    ([("SSLCertVerificationError", VERIFY + "IP address mismatch")], Obstacle.WRONG_HOST_NAME),
    ([("SSLCertVerificationError", VERIFY + "certificate has expired")], Obstacle.CERTIFICATE_EXPIRED),
    ([LOST, ("SSLError", "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert")], Obstacle.NO_CLIENT_CERTIFICATE),
    ([LOST, ("SSLError", "[SSL: SSLV3_ALERT_BAD_CERTIFICATE] alert")], Obstacle.CLIENT_CERTIFICATE_REFUSED),
    (
        [LOST, ("SSLError", "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")],
        Obstacle.CLIENT_CERTIFICATE_REFUSED,
    ),
    ([("SaslAuthenticationFailed", "[Error 58]")], Obstacle.LOGIN_REFUSED),
    ([("ValueError", "Server sent wrong signature!")], Obstacle.LOGIN_REFUSED),
    ([("UnsupportedSaslMechanismError", "[Error 33]")], Obstacle.MECHANISM_OFF),
    ([("TokenUnavailable", "TokenUnavailable: no")], Obstacle.NO_TOKEN),
    ([("ValueError", "something else")], Obstacle.OTHER),
]


@pytest.mark.parametrize(("errors", "cause"), CASES)
def test_an_error_has_a_cause(errors: list[tuple[str, str]], cause: Obstacle) -> None:
    """Each error of a connection, and of its causes, is told apart by class and text."""
    assert classify(errors) is cause


HOW = How("SASL_SSL", "SCRAM-SHA-256", "ann", "/etc/ca.pem", "/etc/client.pem")
NAMED = {
    Obstacle.NO_BROKER: "kafka.bootstrap_servers",
    Obstacle.UNKNOWN_HOST: "kafka.bootstrap_servers",
    Obstacle.NO_ANSWER: "firewall",
    Obstacle.CLOSED: "SASL_SSL with SCRAM-SHA-256",
    Obstacle.WRONG_PROTOCOL: "check the port",
    Obstacle.UNKNOWN_CA: "kafka.ssl_cafile (/etc/ca.pem)",
    Obstacle.WRONG_HOST_NAME: "advertised.listeners",
    Obstacle.CERTIFICATE_EXPIRED: "expired",
    Obstacle.NO_CLIENT_CERTIFICATE: "kafka.ssl_certfile",
    Obstacle.CLIENT_CERTIFICATE_REFUSED: "kafka.ssl_certfile (/etc/client.pem)",
    Obstacle.LOGIN_REFUSED: "FAILSOFT_KAFKA__SASL_PASSWORD",
    Obstacle.MECHANISM_OFF: "it offers PLAIN",
    Obstacle.NO_TOKEN: "no OAUTHBEARER token",
    Obstacle.WRONG_ADVERTISED: "advertised.listeners",
    Obstacle.OTHER: "no connection by SASL_SSL",
}


@pytest.mark.parametrize("cause", Obstacle)
def test_a_finding_names_the_address_and_the_key(cause: Obstacle) -> None:
    """Each cause has a sentence, which begins with the address and names what to change."""
    found = finding(cause, "a:1", HOW, "PLAIN")
    assert found.cause is cause and found.text.startswith("a:1: ") and NAMED[cause] in found.text


def test_a_wrong_protocol_names_the_right_one() -> None:
    """If the listener's protocol is known, the sentence has the key as it must be."""
    text = finding(Obstacle.WRONG_PROTOCOL, "a:1", How("PLAINTEXT"), "SASL_SSL").text
    assert 'set security_protocol = "SASL_SSL"' in text and "kafka.security_protocol is PLAINTEXT" in text


def test_a_client_without_a_certificate_is_not_told_that_it_is_bad() -> None:
    """Some brokers call a missing certificate a bad one."""
    found = finding(Obstacle.CLIENT_CERTIFICATE_REFUSED, "a:1", How("SSL"))
    assert found.cause is Obstacle.NO_CLIENT_CERTIFICATE


def test_what_a_person_must_mend_is_not_waited_for() -> None:
    """A wrong password does not pass; a broker that is away may."""
    assert (
        Obstacle.NO_BROKER in PASSING and Obstacle.LOGIN_REFUSED not in PASSING and Obstacle.UNKNOWN_CA not in PASSING
    )
