"""The cause of an error, and the sentence for it."""

from __future__ import annotations

import pytest

from failsoft.topics.connection.causes import PASSING, Cause, How, classify, finding

VERIFY = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
LOST = ("KafkaConnectionError", "KafkaConnectionError: Connection at a:1 closed")
CASES = [
    ([("ConnectionRefusedError", "[Errno 111] Connection refused")], Cause.NO_BROKER),
    ([("OSError", "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0)")], Cause.NO_BROKER),
    ([("OSError", "[Errno 113] No route to host")], Cause.NO_BROKER),
    ([("gaierror", "[Errno -2] Name or service not known")], Cause.UNKNOWN_HOST),
    ([("TimeoutError", "")], Cause.NO_ANSWER),
    ([LOST], Cause.CLOSED),
    ([LOST, ("IncompleteReadError", "0 bytes read on a total of 4 expected bytes")], Cause.CLOSED),
    ([LOST, ("ConnectionResetError", "[Errno 104] Connection reset by peer")], Cause.CLOSED),
    ([("SSLEOFError", "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation")], Cause.CLOSED),
    ([("SSLError", "[SSL: WRONG_VERSION_NUMBER] wrong version number")], Cause.WRONG_PROTOCOL),
    ([("IllegalSaslStateError", "[Error 34]")], Cause.WRONG_PROTOCOL),
    ([("SSLCertVerificationError", VERIFY + "self-signed certificate in certificate chain")], Cause.UNKNOWN_CA),
    ([("SSLCertVerificationError", VERIFY + "Hostname mismatch, not valid for 'a'")], Cause.WRONG_HOST_NAME),
    ([("SSLCertVerificationError", VERIFY + "IP address mismatch")], Cause.WRONG_HOST_NAME),
    ([("SSLCertVerificationError", VERIFY + "certificate has expired")], Cause.CERTIFICATE_EXPIRED),
    ([LOST, ("SSLError", "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert")], Cause.NO_CLIENT_CERTIFICATE),
    ([LOST, ("SSLError", "[SSL: SSLV3_ALERT_BAD_CERTIFICATE] alert")], Cause.CLIENT_CERTIFICATE_REFUSED),
    ([LOST, ("SSLError", "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")], Cause.CLIENT_CERTIFICATE_REFUSED),
    ([("SaslAuthenticationFailed", "[Error 58]")], Cause.LOGIN_REFUSED),
    ([("ValueError", "Server sent wrong signature!")], Cause.LOGIN_REFUSED),
    ([("UnsupportedSaslMechanismError", "[Error 33]")], Cause.MECHANISM_OFF),
    ([("TokenUnavailable", "TokenUnavailable: no")], Cause.NO_TOKEN),
    ([("ValueError", "something else")], Cause.OTHER),
]


@pytest.mark.parametrize(("errors", "cause"), CASES)
def test_an_error_has_a_cause(errors: list[tuple[str, str]], cause: Cause) -> None:
    """Each error of a connection, and of its causes, is told apart by class and text."""
    assert classify(errors) is cause


HOW = How("SASL_SSL", "SCRAM-SHA-256", "ann", "/etc/ca.pem", "/etc/client.pem")
NAMED = {
    Cause.NO_BROKER: "kafka.bootstrap_servers",
    Cause.UNKNOWN_HOST: "kafka.bootstrap_servers",
    Cause.NO_ANSWER: "firewall",
    Cause.CLOSED: "SASL_SSL with SCRAM-SHA-256",
    Cause.WRONG_PROTOCOL: "check the port",
    Cause.UNKNOWN_CA: "kafka.ssl_cafile (/etc/ca.pem)",
    Cause.WRONG_HOST_NAME: "advertised.listeners",
    Cause.CERTIFICATE_EXPIRED: "expired",
    Cause.NO_CLIENT_CERTIFICATE: "kafka.ssl_certfile",
    Cause.CLIENT_CERTIFICATE_REFUSED: "kafka.ssl_certfile (/etc/client.pem)",
    Cause.LOGIN_REFUSED: "FAILSOFT_KAFKA__SASL_PASSWORD",
    Cause.MECHANISM_OFF: "it offers PLAIN",
    Cause.NO_TOKEN: "no OAUTHBEARER token",
    Cause.WRONG_ADVERTISED: "advertised.listeners",
    Cause.OTHER: "no connection by SASL_SSL",
}


@pytest.mark.parametrize("cause", Cause)
def test_a_finding_names_the_address_and_the_key(cause: Cause) -> None:
    """Each cause has a sentence, which begins with the address and names what to change."""
    found = finding(cause, "a:1", HOW, "PLAIN")
    assert found.cause is cause and found.text.startswith("a:1: ") and NAMED[cause] in found.text


def test_a_wrong_protocol_names_the_right_one() -> None:
    """If the listener's protocol is known, the sentence has the key as it must be."""
    text = finding(Cause.WRONG_PROTOCOL, "a:1", How("PLAINTEXT"), "SASL_SSL").text
    assert 'set security_protocol = "SASL_SSL"' in text and "kafka.security_protocol is PLAINTEXT" in text


def test_a_client_without_a_certificate_is_not_told_that_it_is_bad() -> None:
    """Some brokers call a missing certificate a bad one."""
    found = finding(Cause.CLIENT_CERTIFICATE_REFUSED, "a:1", How("SSL"))
    assert found.cause is Cause.NO_CLIENT_CERTIFICATE


def test_what_a_person_must_mend_is_not_waited_for() -> None:
    """A wrong password does not pass; a broker that is away may."""
    assert Cause.NO_BROKER in PASSING and Cause.LOGIN_REFUSED not in PASSING and Cause.UNKNOWN_CA not in PASSING
