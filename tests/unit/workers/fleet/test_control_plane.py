"""The control plane's connection settings and data folder."""

from __future__ import annotations

import ssl
from typing import Any, cast

import pytest
from faust.transport.drivers import aiokafka as driver

from failsoft.topics.connection.oauth import FromCommand, TokenProvider
from failsoft.topics.names import Names
from failsoft.workers.fleet.control_plane import ControlPlane
from failsoft.workers.fleet.faust_app import credentials
from failsoft.workers.fleet.owner import Owner
from failsoft.workers.identity import own_folder

SASL = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "ann", "sasl_plain_password": "secret"}
OWNER = Owner({}, {}, lambda: 0.0, lambda: 0.5, cast(Any, None), lambda model, change: None)
TOKENS = TokenProvider(FromCommand(["true"]), {})
CONTEXT = ssl.create_default_context()


@pytest.mark.parametrize(
    "connection",
    [
        {"security_protocol": "PLAINTEXT"},
        {"security_protocol": "SSL", "ssl_context": CONTEXT},
        {"security_protocol": "SASL_PLAINTEXT", **SASL},
        {"security_protocol": "SASL_PLAINTEXT", **SASL, "sasl_mechanism": "PLAIN"},
        {"security_protocol": "SASL_SSL", **SASL, "sasl_mechanism": "SCRAM-SHA-256", "ssl_context": CONTEXT},
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": TOKENS},
    ],
    ids=lambda c: c["security_protocol"],
)
def test_faust_connects_with_the_lanes_credentials(connection: dict[str, Any]) -> None:
    """Faust gets the same TLS and SASL settings as the lanes; otherwise a secured cluster has no fleet breakers."""
    auth = driver.credentials_to_aiokafka_auth(credentials(connection))
    assert {k: v for k, v in auth.items() if v is not None} == connection


def test_the_app_has_the_credentials_and_uses_the_workers_folder() -> None:
    """The app puts its data in the worker's own folder; a separate one would stay behind after each ``kill -9``."""
    connection = {"bootstrap_servers": "a:1,b:2", "security_protocol": "SASL_PLAINTEXT", **SASL}
    plane = ControlPlane(Names("loans"), connection, "w", OWNER, set)
    conf = plane.app.conf
    assert conf.broker_credentials.username == "ann" and [u.host for u in conf.broker] == ["a", "b"]
    assert conf.datadir.is_relative_to(own_folder())
