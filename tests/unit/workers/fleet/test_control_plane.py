"""How the control plane connects, and what it leaves on disk."""

from __future__ import annotations

import ssl
from typing import Any, cast

import pytest
from faust.transport.drivers import aiokafka as driver

from failsoft.topics.names import Names
from failsoft.workers.fleet.control_plane import ControlPlane
from failsoft.workers.fleet.faust_app import credentials
from failsoft.workers.fleet.owner import Owner
from failsoft.workers.identity import own_folder

SASL = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "ann", "sasl_plain_password": "secret"}
OWNER = Owner({}, {}, lambda: 0.0, lambda: 0.5, cast(Any, None), lambda model, change: None)
CONTEXT = ssl.create_default_context()


@pytest.mark.parametrize(
    "connection",
    [
        {"security_protocol": "PLAINTEXT"},
        {"security_protocol": "SSL", "ssl_context": CONTEXT},
        {"security_protocol": "SASL_PLAINTEXT", **SASL},
        {"security_protocol": "SASL_PLAINTEXT", **SASL, "sasl_mechanism": "PLAIN"},
        {"security_protocol": "SASL_SSL", **SASL, "sasl_mechanism": "SCRAM-SHA-256", "ssl_context": CONTEXT},
    ],
    ids=lambda c: c["security_protocol"],
)
def test_it_connects_as_the_lanes_do(connection: dict[str, Any]) -> None:
    """On a cluster with TLS or SASL the fleet's breakers would else be out of reach, and each worker on its own."""
    found = driver.credentials_to_aiokafka_auth(credentials(connection))
    assert {k: v for k, v in found.items() if v is not None} == connection


def test_the_app_is_given_them_and_makes_no_folder_of_its_own() -> None:
    """A folder a process would stay behind after each ``kill -9``."""
    connection = {"bootstrap_servers": "a:1,b:2", "security_protocol": "SASL_PLAINTEXT", **SASL}
    plane = ControlPlane(Names("loans"), connection, "w", OWNER, set)
    conf = plane.app.conf
    assert conf.broker_credentials.username == "ann" and [u.host for u in conf.broker] == ["a", "b"]
    assert conf.datadir.is_relative_to(own_folder())
