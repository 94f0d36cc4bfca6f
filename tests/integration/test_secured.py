"""Secured brokers: a worker by each way to connect, and what happens when passwords and certificates change."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.integration.fleet import gauge, rollouts
from tests.integration.pipeline import Pipeline, Worker, events
from tests.kafka import read_all, wait_for
from tests.secured import KEY_PASSWORD, PASSWORD, USER, SecuredBroker, token

PASSWORDS = {"FAILSOFT_KAFKA__SASL_PASSWORD": PASSWORD}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """One broker with every kind of listener."""
    secured = SecuredBroker(tmp_path_factory.mktemp("pem"))
    secured.start()
    yield secured
    secured.stop()


@contextmanager
def endpoint() -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
    """An OIDC token endpoint: its address, and the forms that it got. Its tokens expire after two seconds."""
    asked: list[dict[str, list[str]]] = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked.append(form | {"login": [self.headers["Authorization"]]})
            body = json.dumps({"access_token": token(lasts=3.0), "expires_in": 2}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pipeline(folder: Path, name: str, broker: SecuredBroker, listener: str, keys: str, **environ: str) -> Pipeline:
    """A pipeline whose workers connect to ``listener``; the test itself connects in plain text."""
    return Pipeline(
        folder / name,
        broker.bootstrap,
        name,
        partitions=1,
        workers_bootstrap=broker.at(listener),
        kafka_lines=keys,
        environ=environ,
    )


def login(mechanism: str, folder: Path) -> str:
    """The keys for LOGIN."""
    return (
        f'security_protocol = "SASL_SSL"\nsasl_mechanism = "{mechanism}"\nsasl_username = "{USER}"\n'
        f'ssl_cafile = "{folder / "ca.pem"}"'
    )


def mutual(folder: Path) -> str:
    """The keys for MTLS, with an encrypted key."""
    return (
        f'security_protocol = "SSL"\nssl_cafile = "{folder / "ca.pem"}"\n'
        f'ssl_certfile = "{folder / "client.pem"}"\nssl_keyfile = "{folder / "client.enc.key"}"'
    )


def answered(pipe: Pipeline, count: int) -> None:
    """Publishes ``count`` events more, and waits for the answers to all so far."""
    pipe.publish(events(count, start=pipe.published))
    found = read_all(pipe.bootstrap, f"{pipe.name}.scored", until=lambda seen: len(seen) >= pipe.published)
    assert len(found) == pipe.published


def reads_table(pipe: Pipeline, worker: Worker) -> None:
    """Waits until the worker reads the breakers' table, and its reports were folded into the tables."""
    worker.wait_ready()
    wait_for(lambda: gauge(worker, "failsoft_control_plane_up") == 1, 60, f"{worker.id} to read the table")
    wait_for(lambda: rollouts(pipe), 60, f"{worker.id}'s reports to reach the table")


def test_a_worker_by_each_way_to_connect(broker: SecuredBroker, tmp_path: Path, name: str) -> None:
    """TLS with a client certificate and an encrypted key, PLAIN, SCRAM, and OAUTHBEARER from a command, a file and an
    endpoint: events in, answers out, and the breakers' table is read and written.

    Tokens expire after a few seconds, and the broker then ends their connections: the workers go on with new ones.
    """
    (tmp_path / "token").write_text(token(lasts=5.0))
    oauth = (
        f'security_protocol = "SASL_SSL"\nsasl_mechanism = "OAUTHBEARER"\nssl_cafile = "{broker.folder / "ca.pem"}"\n'
    )
    command = tmp_path / "command"
    command.write_text(f"#!/bin/sh\necho {token()}\n")
    command.chmod(0o755)
    with endpoint() as (url, asked):
        client = f'sasl_oauth_client_id = "w1"\nsasl_oauth_scope = "kafka"\nsasl_oauth_token_endpoint = "{url}"'
        secret = {"FAILSOFT_KAFKA__SASL_OAUTH_CLIENT_SECRET": "x y"}
        clear = f'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "SCRAM-SHA-256"\nsasl_username = "{USER}"'
        ways = [
            ("MTLS", mutual(broker.folder), {"FAILSOFT_KAFKA__SSL_PASSWORD": KEY_PASSWORD}),
            ("LOGIN", login("PLAIN", broker.folder), PASSWORDS),
            ("CLEAR", clear, PASSWORDS),
            ("LOGIN", login("SCRAM-SHA-512", broker.folder), PASSWORDS),
            ("LOGIN", f'{oauth}sasl_oauth_token_command = "{command}"', {}),
            ("LOGIN", f'{oauth}sasl_oauth_token_file = "{tmp_path / "token"}"', {}),
            ("LOGIN", f"{oauth}{client}", secret),
        ]
        pipes = [
            pipeline(tmp_path, f"{name}-{i}", broker, listener, keys, **environ)
            for i, (listener, keys, environ) in enumerate(ways)
        ]
        over = threading.Event()

        def renew() -> None:
            while not over.wait(1.0):
                fresh = tmp_path / "token.new"
                fresh.write_text(token(lasts=5.0))
                fresh.rename(tmp_path / "token")

        renewer = threading.Thread(target=renew)
        renewer.start()
        try:
            with ThreadPoolExecutor(3) as pool:
                for settlement in pool.map(lambda pipe: pipe.create(), pipes):
                    settlement.close()
            workers = [(pipe, pipe.start()) for pipe in pipes]
            for pipe, worker in workers:
                reads_table(pipe, worker)
                answered(pipe, 20)
            since = len(asked)
            wait_for(lambda: len(asked) > since, 30, "the endpoint to be asked for a new token")
            for pipe, worker in workers:
                answered(pipe, 20)
                assert gauge(worker, "failsoft_kafka_connection_failures_total") == 0, pipe.logs()
                assert worker.process.poll() is None
        finally:
            over.set()
            renewer.join()
            for pipe in pipes:
                pipe.stop()
    form = asked[0]
    assert form["grant_type"] == ["client_credentials"] and form["scope"] == ["kafka"]
    assert form["login"] == ["Basic dzE6eCt5"]  # w1:x+y


def test_certificates_and_passwords_that_change(broker: SecuredBroker, tmp_path: Path, name: str) -> None:
    """Renewed certificates, the broker's and the client's, are used without a restart of the worker. A password that
    was changed on the broker is named in the log and the metrics, and the worker goes on when it is right again.
    """
    mtls = pipeline(
        tmp_path,
        f"{name}-c",
        broker,
        "MTLS",
        mutual(broker.folder),
        FAILSOFT_KAFKA__SSL_PASSWORD=KEY_PASSWORD,
    )
    scram = pipeline(tmp_path, f"{name}-p", broker, "LOGIN", login("SCRAM-SHA-256", broker.folder), **PASSWORDS)
    pipes = [mtls, scram]
    try:
        for pipe in pipes:
            pipe.create().close()
        workers = [pipe.start() for pipe in pipes]
        for pipe, worker in zip(pipes, workers, strict=True):
            worker.wait_ready()
            answered(pipe, 10)
        # The clients' new authority is the only one that the broker trusts from now on.
        renewed = trustme.CA()
        broker.issue_client(renewed)
        broker.trusts(renewed)
        broker.renew()
        _set_password(broker, "changed")
        broker.restart()
        answered(mtls, 10)
        line = wait_for(lambda: lines_with(workers[1], "login_refused"), 30, "the refused login in the log")
        assert "kafka.sasl_username" in line and "start it again with the new one" in line
        assert gauge(workers[1], 'failsoft_kafka_connection_failures_total{cause="login_refused"}') > 0
        _set_password(broker, PASSWORD)
        # Its group has removed it meanwhile, as in any outage longer than a session: it ends, and is started again.
        assert workers[1].process.wait(60) == 1, scram.logs()
        scram.start("w0")
        answered(scram, 10)
        assert workers[0].process.poll() is None, mtls.logs()
    finally:
        for pipe in pipes:
            pipe.stop()
        _set_password(broker, PASSWORD)


def lines_with(worker: Worker, words: str) -> str:
    """The first line of the worker's log with ``words``."""
    return next((line for line in worker.log.read_text(errors="replace").splitlines() if words in line), "")


def _set_password(broker: SecuredBroker, password: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 2})
    kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    changes = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, kind, password.encode())])
    for change in changes.values():
        change.result(30)
