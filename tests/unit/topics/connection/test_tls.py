"""PEM files: what is wrong with them is said by key, and renewed ones are used for new connections."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from failsoft.topics.connection.diagnosis import diagnose
from failsoft.topics.connection.tls import PemContext, UnusablePem
from tests.secured import KEY_PASSWORD, expired, write_client


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    """A folder with ca.pem, and a client's certificate with its key, plain and encrypted."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    write_client(authority, tmp_path)
    write_client(authority, tmp_path / "other")
    return tmp_path


@pytest.mark.parametrize(
    ("certfile", "keyfile", "password", "key", "text"),
    [
        ("client.pem", "client.enc.key", None, "ssl_keyfile", "encrypted and there is no password"),
        ("client.pem", "client.enc.key", "wrong", "ssl_keyfile", "does not open the key"),
        ("client.pem", "other/client.key", None, "ssl_keyfile", "not the key of"),
        ("client.pem", "", None, "ssl_certfile", "ssl_keyfile"),
        ("", "client.key", None, "ssl_certfile", "missing"),
        ("client.pem", "away.key", None, "ssl_keyfile", "no such file"),
        ("client.key", "client.key", None, "ssl_certfile, ssl_keyfile", "cannot be used"),
    ],
)
def test_an_unusable_file_is_named(
    folder: Path, certfile: str, keyfile: str, password: str | None, key: str, text: str
) -> None:
    """The error has the key and the file. OpenSSL never asks for a password on the terminal."""
    files = [str(folder / name) if name else "" for name in ("ca.pem", certfile, keyfile)]
    with pytest.raises(UnusablePem, match=text) as caught:
        PemContext.of(*files, password=password)
    assert caught.value.key == key


async def _seen(context: ssl.SSLContext, server_side: ssl.SSLContext) -> str:
    """Connects once; returns the common name of the client's certificate that the server sees."""
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subject = dict(part[0] for part in writer.get_extra_info("peercert")["subject"])
        seen.set_result(subject["commonName"])
        writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0, ssl=server_side)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=context)
        found = await asyncio.wait_for(seen, 10)
        writer.close()
    return found


def _server(authority: trustme.CA, leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (leaf or authority.issue_cert("127.0.0.1")).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_renewed_certificate_is_used_for_the_next_connection(folder: Path, authority: trustme.CA) -> None:
    """Half of a renewal changes nothing; when both files are new, the next connection uses them."""
    context = PemContext.of(*(str(folder / name) for name in ("ca.pem", "client.pem", "client.enc.key")), KEY_PASSWORD)
    server = _server(authority)
    assert await _seen(context, server) == "client"
    write_client(authority, folder / "new", "renewed")
    (folder / "new/client.pem").replace(folder / "client.pem")
    assert await _seen(context, server) == "client"
    (folder / "new/client.enc.key").replace(folder / "client.enc.key")
    assert await _seen(context, server) == "renewed"


@pytest.mark.parametrize(("name", "cause"), [("127.0.0.1", "certificate_expired"), ("example.org", "wrong_host_name")])
async def test_a_brokers_bad_certificate_is_named(folder: Path, authority: trustme.CA, name: str, cause: str) -> None:
    """An expired certificate and one for another host are told apart, at once."""
    leaf = expired(authority, name) if cause == "certificate_expired" else authority.issue_cert(name)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=_server(authority, leaf))
    async with server:
        host, port = server.sockets[0].getsockname()
        options = {"security_protocol": "SSL", "ssl_context": PemContext.of(str(folder / "ca.pem"))}
        (found,) = await diagnose({"bootstrap_servers": f"{host}:{port}", **options})
    assert found.cause == cause, found


async def test_a_port_of_something_else_is_no_broker(folder: Path) -> None:
    """A server of another protocol is not called silent, nor a broker without a reason, if its answer shows it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        options = {"security_protocol": "SSL", "ssl_context": PemContext.of(str(folder / "ca.pem"))}
        (found,) = await diagnose({"bootstrap_servers": f"{host}:{port}", **options})
    assert found.cause == "wrong_protocol" and "does not speak Kafka's protocol" in found.text
