"""Secured brokers: a worker by each way to connect, and what happens when passwords and certificates change."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from failsoft.schemas.config.refusal import Refused
from failsoft.topics import admin
from failsoft.workers import settings
from failsoft.workers.commands import error_codes
from failsoft.workers.settings import wanted
from tests.integration.fleet import gauge, rollouts
from tests.integration.pipeline import Pipeline, Worker, events
from tests.kafka import create_topic, read_all, wait_for
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
        secrets=environ,
    )


def create(pipe: Pipeline) -> None:
    """Creates the pipeline's topics by its secured connection."""
    create_topic(pipe.bootstrap, pipe.inputs[0], pipe.partitions)
    found = settings.load(pipe.file, pipe.secrets)
    asyncio.run(admin.apply(found.connection(), wanted(found)))


def refusal(pipe: Pipeline) -> tuple[int | None, str]:
    """The exit code and the message of a command that only connects."""
    try:
        found = settings.load(pipe.file, pipe.secrets)
        asyncio.run(admin.verify(found.connection(), wanted(found)))
    except (admin.KafkaUnreachable, Refused) as error:
        return error_codes.code_of(error), error_codes.message(error)
    raise AssertionError("it was not refused")


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


@dataclass
class Fleet:
    """A worker by each way to connect, each of a pipeline of its own.

    Attributes:
        pipes: the pipelines by way.
        asked: the forms that the token endpoint got.
    """

    pipes: dict[str, Pipeline]
    asked: list[dict[str, list[str]]]

    def worker(self, way: str) -> Worker:
        return self.pipes[way].workers[-1]


def ways(folder: Path, pem: Path, url: str) -> dict[str, tuple[str, str, dict[str, str]]]:
    """The listener, the keys and the variables by way. ``folder`` has the command and the file of tokens."""
    secure = f'security_protocol = "SASL_SSL"\nssl_cafile = "{pem}/ca.pem"\nsasl_mechanism = '
    clear = 'security_protocol = "SASL_PLAINTEXT"\n'
    user = f'sasl_username = "{USER}"'
    client = f'sasl_oauth_client_id = "w1"\nsasl_oauth_scope = "kafka"\nsasl_oauth_token_endpoint = "{url}"'
    pair = f'ssl_cafile = "{pem}/ca.pem"\nssl_certfile = "{pem}/client.pem"\nssl_keyfile = "{pem}/client.enc.key"'
    return {
        "mtls": ("MTLS", f'security_protocol = "SSL"\n{pair}', {"FAILSOFT_KAFKA__SSL_PASSWORD": KEY_PASSWORD}),
        "plain": ("LOGIN", f'{secure}"PLAIN"\n{user}', PASSWORDS),
        "scram": (
            "CLEAR",
            f'{clear}sasl_mechanism = "SCRAM-SHA-512"\n{user}',
            PASSWORDS,
        ),
        "command": ("LOGIN", f'{secure}"OAUTHBEARER"\nsasl_oauth_token_command = "{folder}/command"', {}),
        "file": ("LOGIN", f'{secure}"OAUTHBEARER"\nsasl_oauth_token_file = "{folder}/token"', {}),
        "endpoint": (
            "LOGIN",
            f'{secure}"OAUTHBEARER"\n{client}',
            {"FAILSOFT_KAFKA__SASL_OAUTH_CLIENT_SECRET": "x y"},
        ),
    }


@contextmanager
def renewed_file(path: Path) -> Iterator[None]:
    """Keeps a file with a token that expires in five seconds, and replaces it each second."""
    over = threading.Event()

    def renew() -> None:
        while True:
            path.with_suffix(".new").write_text(token(lasts=5.0))
            path.with_suffix(".new").rename(path)
            if over.wait(1.0):
                return

    thread = threading.Thread(target=renew)
    thread.start()
    wait_for(path.exists, 10, "the file with a token")
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def fleet(broker: SecuredBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """All workers, started; their topics were created by the same connections."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "command").write_text(f"#!/bin/sh\necho {token()}\n")
    (folder / "command").chmod(0o755)
    with endpoint() as (url, asked), renewed_file(folder / "token"):
        pipes = {
            way: pipeline(folder, f"secured-{way}", broker, listener, keys, **environ)
            for way, (listener, keys, environ) in ways(folder, broker.folder, url).items()
        }
        try:
            for pipe in pipes.values():
                create(pipe)
                pipe.start()
            yield Fleet(pipes, asked)
        finally:
            for pipe in pipes.values():
                pipe.stop()


def test_a_worker_by_each_way_to_connect(fleet: Fleet) -> None:
    """TLS with a client certificate and an encrypted key, PLAIN, SCRAM, and OAUTHBEARER from a command, a file and an
    endpoint: events in, answers out, and the breakers' table is read and written.

    Some tokens expire after seconds, and the broker then ends their connections: the workers go on with new ones.
    """
    for way, pipe in fleet.pipes.items():
        reads_table(pipe, fleet.worker(way))
        answered(pipe, 20)
    since = len(fleet.asked)
    wait_for(lambda: len(fleet.asked) > since, 30, "the endpoint to be asked for a new token")
    for way, pipe in fleet.pipes.items():
        answered(pipe, 20)
        assert gauge(fleet.worker(way), "failsoft_kafka_connection_failures_total") == 0, pipe.logs()
        assert fleet.worker(way).process.poll() is None
    form = fleet.asked[0]
    assert form["grant_type"] == ["client_credentials"] and form["scope"] == ["kafka"]
    assert form["login"] == ["Basic dzE6eCt5"]  # w1:x+y


def test_certificates_and_passwords_that_change(broker: SecuredBroker, fleet: Fleet) -> None:
    """Renewed certificates, the broker's and the client's, are used without a restart of the worker. A password that
    was changed on the broker is named in the log and the metrics, and events are answered when it is right again.
    """
    for way in ("plain", "command", "file", "endpoint"):
        fleet.pipes[way].stop()
    scram, worker = fleet.pipes["scram"], fleet.worker("scram")
    # The clients' new authority is the only one that the broker trusts from now on.
    renewed = trustme.CA()
    broker.issue_client(renewed)
    broker.trusts(renewed)
    broker.renew()
    _set_password(broker, "changed")
    try:
        broker.restart()
        line = wait_for(lambda: lines_with(worker, "login_refused"), 30, "the refused login in the log")
        assert "kafka.sasl_username" in line and "start it again with the new one" in line
        assert gauge(worker, 'failsoft_kafka_connection_failures_total{cause="login_refused"}') > 0
    finally:
        _set_password(broker, PASSWORD)
    answered(fleet.pipes["mtls"], 10)
    assert fleet.worker("mtls").process.poll() is None, fleet.pipes["mtls"].logs()
    scram.publish(events(10, start=scram.published))

    def settled() -> bool:
        # A worker that was silent for longer than its session ends, as after any outage: its supervisor starts another.
        if scram.workers[-1].process.poll() == 1:
            scram.start()
        return len(read_all(scram.bootstrap, f"{scram.name}.scored")) >= scram.published

    wait_for(settled, 60, "the answers after the password was right again")
    assert len(read_all(scram.bootstrap, f"{scram.name}.scored")) == scram.published


SSL = 'security_protocol = "SSL"\n'
CA = 'ssl_cafile = "{pem}/ca.pem"\n'
PAIR = 'ssl_certfile = "{pem}/client.pem"\nssl_keyfile = "{pem}/client.key"\n'
SECURE = 'security_protocol = "SASL_SSL"\nssl_cafile = "{pem}/ca.pem"\nsasl_mechanism = '
WRONG = {"FAILSOFT_KAFKA__SASL_PASSWORD": "wrong"}

CAUSES = {
    "plain text to TLS": ("MTLS", "", {}, 4, 'set security_protocol = "SSL"'),
    "plain text to a login": ("CLEAR", "", {}, 4, 'set security_protocol = "SASL_PLAINTEXT"'),
    "TLS to plain text": ("PLAINTEXT", SSL + CA + PAIR, {}, 4, 'set security_protocol = "PLAINTEXT"'),
    "a login to none": ("PLAINTEXT", SECURE + f'"PLAIN"\nsasl_username = "{USER}"', PASSWORDS, 4, '"PLAINTEXT"'),
    "TLS without the login": ("LOGIN", SSL + CA, {}, 4, 'set security_protocol = "SASL_SSL"'),
    "no client certificate": ("MTLS", SSL + CA, {}, 4, "set kafka.ssl_certfile and kafka.ssl_keyfile"),
    "unknown authority": ("MTLS", SSL + PAIR, {}, 4, "no ssl_cafile"),
    "another authority": ("MTLS", SSL + 'ssl_cafile = "{pem}/other-ca.pem"\n' + PAIR, {}, 4, "(/"),
    "a certificate without its key": ("MTLS", SSL + CA + PAIR.split("\n")[0], {}, 3, "kafka.ssl_certfile"),
    "an encrypted key": ("MTLS", SSL + CA + PAIR.replace(".key", ".enc.key"), {}, 3, "FAILSOFT_KAFKA__SSL_PASSWORD"),
    "a wrong password": ("LOGIN", SECURE + f'"PLAIN"\nsasl_username = "{USER}"', WRONG, 4, "FAILSOFT_KAFKA__SASL_PASS"),
    "a wrong SCRAM": ("LOGIN", SECURE + f'"SCRAM-SHA-512"\nsasl_username = "{USER}"', WRONG, 4, "kafka.sasl_username"),
    "a mechanism that is off": (
        "CLEAR",
        f'security_protocol = "SASL_PLAINTEXT"\nsasl_username = "{USER}"',
        PASSWORDS,
        4,
        "it offers SCRAM-SHA-",
    ),
    "no source of tokens": ("LOGIN", SECURE + '"OAUTHBEARER"', {}, 3, "exactly one of them"),
    "a refused token": (
        "LOGIN",
        SECURE + '"OAUTHBEARER"\nsasl_oauth_token_command = "echo a.e30.b"',
        {},
        4,
        "refuses the OAUTHBEARER token",
    ),
    "a source that fails": (
        "LOGIN",
        SECURE + '"OAUTHBEARER"\nsasl_oauth_token_command = "false"',
        {},
        4,
        "ended with 1",
    ),
    "Kerberos": ("LOGIN", SECURE + '"GSSAPI"', {}, 3, "OAUTHBEARER"),
    "a lost address": ("LOST", "", {}, 4, "advertised.listeners"),
}


@pytest.mark.parametrize("case", CAUSES)
def test_a_cause_is_named_at_once(broker: SecuredBroker, tmp_path: Path, name: str, case: str) -> None:
    """Each mistake has its own message, with the key to change, and the exit code: 3 if the file is wrong by itself, 4
    if a connection shows it.
    """
    listener, keys, environ, code, text = CAUSES[case]
    pipe = pipeline(tmp_path, name, broker, listener, keys.replace("{pem}", str(broker.folder)), **environ)
    began = time.monotonic()
    found, message = refusal(pipe)
    assert found == code and text in message, message
    assert "kafka.sasl_mechanism" in message or broker.at(listener) in message or code == 3
    assert time.monotonic() - began < 8


def test_a_worker_that_is_refused_ends(broker: SecuredBroker, tmp_path: Path, name: str) -> None:
    """A worker, two under a supervisor, and a command with --debug end with the cause, once, and with code 4."""
    keys = SECURE.replace("{pem}", str(broker.folder)) + f'"PLAIN"\nsasl_username = "{USER}"'
    pipe = pipeline(tmp_path, name, broker, "LOGIN", keys, **WRONG)
    commands = [("worker",), ("worker", "--processes", "2"), ("--debug", "topics", "show")]
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda command: pipe.run(*command, timeout=60), commands))
    for command, done in zip(commands, ended, strict=True):
        said = done.stderr.decode()
        assert done.returncode == 4 and said.count("failsoft: ") == 1, said
        assert "FAILSOFT_KAFKA__SASL_PASSWORD" in said
        assert ("Traceback" in said) is (command[0] == "--debug"), said


def lines_with(worker: Worker, words: str) -> str:
    """The first line of the worker's log with ``words``."""
    return next((line for line in worker.log.read_text(errors="replace").splitlines() if words in line), "")


def _set_password(broker: SecuredBroker, password: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 2})
    kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    changes = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, kind, password.encode())])
    for change in changes.values():
        change.result(30)
