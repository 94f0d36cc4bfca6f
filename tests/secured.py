"""A broker with a listener of each kind, its certificates, and the keys of a pipeline file for each kind of client."""

from __future__ import annotations

import base64
import datetime
import json
import time
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from failsoft.topics.embedded.broker import HOST, free_port
from tests.kafka import EmbeddedBroker

USER, PASSWORD, KEY_PASSWORD = "ann", "s3cret", "sesame"
REAUTHENTICATE_MS = 4_000
"""Milliseconds after which the broker closes a connection whose token has expired; clients must connect again."""

_LOGIN = "org.apache.kafka.common.security"


class SecuredBroker(EmbeddedBroker):
    """A broker with the listeners PLAINTEXT (``bootstrap``, for the test), MTLS, LOGIN (SASL_SSL with every mechanism),
    CLEAR (SASL_PLAINTEXT, SCRAM only) and LOST (plain text, with an advertised address where nothing listens).

    ``folder`` gets the PEM files.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.authority = folder, trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
        self.trusts(self.authority)
        self.renew()
        self.issue_client(self.authority)
        self.ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", "MTLS", "LOGIN", "CLEAR", "LOST")}
        self.nobody = free_port()
        super().__init__(port=self.ports["PLAINTEXT"], settings=self._properties())

    def at(self, listener: str) -> str:
        """HOST:PORT of a listener."""
        return f"{HOST}:{self.ports[listener]}"

    def trusts(self, authority: trustme.CA) -> None:
        """Clients' certificates must be signed by ``authority``. Effective at the broker's next start."""
        authority.cert_pem.write_to_path(self.folder / "clients-ca.pem")

    def renew(self) -> None:
        """Give the broker a new certificate of the same authority. Effective at its next start."""
        leaf = self.authority.issue_cert(HOST)
        chain = b"".join(each.bytes() for each in leaf.cert_chain_pems)
        (self.folder / "broker.pem").write_bytes(_pkcs8(leaf) + chain)

    def issue_client(self, authority: trustme.CA) -> None:
        """Write client.pem, client.key and, encrypted with KEY_PASSWORD, client.enc.key."""
        write_client(authority, self.folder)

    def format_options(self) -> list[str]:
        """The options of the format tool, with the SCRAM users."""
        users = (f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512))
        return [*super().format_options(), *(word for user in users for word in ("--add-scram", user))]

    def _properties(self) -> dict[str, str]:
        protocols = {
            "PLAINTEXT": "PLAINTEXT",
            "CONTROLLER": "PLAINTEXT",
            "MTLS": "SSL",
            "LOGIN": "SASL_SSL",
            "CLEAR": "SASL_PLAINTEXT",
            "LOST": "PLAINTEXT",
        }
        advertised = {**{name: self.at(name) for name in protocols}, "LOST": f"{HOST}:{self.nobody}"}
        found = {
            "listeners": ",".join(f"{name}://{self.at(name)}" for name in protocols),
            "advertised.listeners": ",".join(f"{name}://{where}" for name, where in advertised.items()),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "controller.quorum.bootstrap.servers": self.at("CONTROLLER"),
            "inter.broker.listener.name": "PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.folder / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.folder / "clients-ca.pem"),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.clear.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.login.oauthbearer.connections.max.reauth.ms": str(REAUTHENTICATE_MS),
            "listener.name.login.plain.sasl.jaas.config": (
                f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            ),
            "listener.name.login.oauthbearer.sasl.jaas.config": (
                f'{_LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            ),
        }
        for listener in ("login", "clear"):
            for bits in (256, 512):
                found[f"listener.name.{listener}.scram-sha-{bits}.sasl.jaas.config"] = (
                    f"{_LOGIN}.scram.ScramLoginModule required;"
                )
        return found


def token(lasts: float = 3600.0, name: str = USER) -> str:
    """An unsecured JWS that Kafka's own validator takes; it expires in ``lasts`` seconds."""
    now = time.time()
    claims = {"sub": name, "iat": int(now) - 60, "exp": int(now + lasts)}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])


def write_client(authority: trustme.CA, folder: Path, name: str = "client") -> None:
    """Write client.pem, client.key and, encrypted with KEY_PASSWORD, client.enc.key."""
    folder.mkdir(parents=True, exist_ok=True)
    leaf = authority.issue_cert(name, common_name=name)
    leaf.cert_chain_pems[0].write_to_path(folder / "client.pem")
    (folder / "client.key").write_bytes(_pkcs8(leaf))
    (folder / "client.enc.key").write_bytes(_pkcs8(leaf, KEY_PASSWORD))


def expired(authority: trustme.CA, *names: str) -> trustme.LeafCert:
    """A certificate that has expired."""
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    return authority.issue_cert(*names, not_before=now - 2 * day, not_after=now - day)


def _pkcs8(leaf: trustme.LeafCert, password: str | None = None) -> bytes:
    """The key as Kafka reads it."""
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
