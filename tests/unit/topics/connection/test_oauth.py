"""Tokens: from a command, a file or an endpoint, kept until shortly before they expire, and never a broken one."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest
from aiokafka.errors import SaslAuthenticationFailed

from failsoft.topics.connection.oauth import (
    KEPT,
    CheckedAuthenticator,
    FromCommand,
    FromEndpoint,
    FromFile,
    TokenProvider,
    TokenUnavailable,
    expiry,
)
from tests.secured import token


class Counted:
    """A source that counts; its n-th token is ``token-n``, or a JWT if ``jwt`` is set."""

    def __init__(self, lasts: float | None, jwt: float | None = None) -> None:
        self.lasts, self.jwt, self.count = lasts, jwt, 0

    def fetch(self) -> tuple[str, float | None]:
        self.count += 1
        return token(self.jwt) if self.jwt else f"token-{self.count}", self.lasts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("lasts", "kept"), [(100.0, 80.0), (None, 0.8 * KEPT), (0.0, 0.0)])
async def test_a_token_is_renewed_before_it_expires(lasts: float | None, kept: float) -> None:
    """It is used for four fifths of its lifetime; one that does not say it, for a short time; a file's never kept."""
    clock, source = Clock(), Counted(lasts)
    provider = TokenProvider(source, {}, clock=clock)
    assert await provider.token() == "token-1"
    clock.now += kept - 0.1 if kept else 0.0
    assert await provider.token() == ("token-1" if kept else "token-2")
    clock.now += 0.2
    assert await provider.token() == ("token-2" if kept else "token-3")


async def test_a_commands_jwt_says_when_it_expires() -> None:
    """The claim ``exp`` of a JWT is its lifetime, by the wall clock."""
    clock, source = Clock(), Counted(None, jwt=1_000.0)
    provider = TokenProvider(source, {}, clock=clock)
    await provider.token()
    clock.now += 700
    await provider.token()
    assert source.count == 1
    clock.now += 200
    await provider.token()
    assert source.count == 2


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "a.e30.c", "a.WzFd.c", ""])
def test_any_other_token_has_no_expiry(text: str) -> None:
    """An opaque token is no error."""
    assert expiry(text) is None


def test_a_command_is_run_without_a_shell() -> None:
    """Its output, one line, is the token."""
    assert FromCommand([sys.executable, "-c", "print('a$HOME.b')"]).fetch() == ("a$HOME.b", None)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; sys.exit('denied')", "ended with 1: denied"),
        ("print()", "no token"),
        ("print('two words')", "no token"),
        ("print('ü')", "no token"),
    ],
)
def test_a_command_that_fails_is_named(code: str, text: str) -> None:
    """The error has the key, the exit code and the last line of stderr, but not what was printed."""
    with pytest.raises(TokenUnavailable, match=f"kafka.sasl_oauth_token_command: .*{text}"):
        FromCommand([sys.executable, "-c", code]).fetch()


def test_a_command_that_is_not_there_is_named() -> None:
    """It is not a crash."""
    with pytest.raises(TokenUnavailable, match=r"kafka.sasl_oauth_token_command: no-such-program"):
        FromCommand(["no-such-program"]).fetch()


def test_a_file_is_read_again(tmp_path: Path) -> None:
    """A renewed file is used at once; one that is gone is named."""
    path = tmp_path / "token"
    source = FromFile(path)
    for text in ("one", "two\n"):
        path.write_text(text)
        assert source.fetch() == (text.strip(), 0.0)
    path.unlink()
    with pytest.raises(TokenUnavailable, match=f"kafka.sasl_oauth_token_file: {path}: No such file"):
        source.fetch()


def test_an_endpoint_that_is_away_is_named() -> None:
    """The error has the key and the address, and not the secret."""
    source = FromEndpoint("http://127.0.0.1:1/token", "id", "hush", "", ssl.create_default_context())
    with pytest.raises(TokenUnavailable, match=r"kafka.sasl_oauth_token_endpoint: http://127.0.0.1:1/token") as caught:
        source.fetch()
    assert "hush" not in str(caught.value)


async def test_a_refused_token_is_an_error() -> None:
    """The broker's JSON after a bad token raises; aiokafka took it for success."""
    exchange = CheckedAuthenticator(sasl_oauth_token_provider=TokenProvider(Counted(100.0), {"a": "b"}))
    payload, expects = await exchange.step(None)
    assert payload == b"n,,\x01auth=Bearer token-1\x01a=b\x01\x01" and expects
    with pytest.raises(SaslAuthenticationFailed, match="invalid_token"):
        await exchange.step(b'{"status":"invalid_token"}')
    assert await exchange.step(b"") is None
