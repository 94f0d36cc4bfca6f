"""Tokens for SASL OAUTHBEARER: from a command, a file or an OIDC endpoint, kept until shortly before they expire."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError, SaslAuthenticationFailed

RENEW_AT = 0.8
"""The part of a token's lifetime after which it is renewed, as in Kafka's own client."""

KEPT = 30.0
"""Seconds for which a token is kept that does not say when it expires. A worker opens a dozen connections at once, and
a command may take a second each time."""

SOURCE_WITHIN = 10.0
"""Seconds that the source of a token has."""

MOST_BYTES = 1_000_000
"""A longer answer of an endpoint, or a longer file, is no token."""


class TokenUnavailable(KafkaError):  # type: ignore[misc]
    """The source of tokens gave none. A KafkaError, because aiokafka tries again after such an error only."""


class TokenSource(Protocol):
    """Where tokens come from."""

    def fetch(self) -> tuple[str, float | None]:
        """A token, and its lifetime (seconds) if the source says it. Blocks. Raises TokenUnavailable."""


class FromCommand:
    """A command that prints a token. ``command``: the program and its arguments; no shell runs it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def fetch(self) -> tuple[str, float | None]:
        name = self._command[0]
        try:
            done = subprocess.run(
                self._command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SOURCE_WITHIN, check=False
            )
        except subprocess.TimeoutExpired:
            raise TokenUnavailable(f"kafka.sasl_oauth_token_command: {name} took over {SOURCE_WITHIN:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: a null byte
            raise TokenUnavailable(f"kafka.sasl_oauth_token_command: {name}: {error}") from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise TokenUnavailable(
                f"kafka.sasl_oauth_token_command: {name} ended with {done.returncode}: {' '.join(said)[:200]}"
            )
        return _one_line(done.stdout, f"kafka.sasl_oauth_token_command: {name} printed"), None


class FromFile:
    """A file with a token, which something else renews, such as Kubernetes' service account tokens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self) -> tuple[str, float | None]:
        try:
            with self._path.open("rb") as file:
                text = file.read(MOST_BYTES)
        except OSError as error:
            raise TokenUnavailable(f"kafka.sasl_oauth_token_file: {self._path}: {error.strerror}") from None
        # Not kept: reading is cheap, and a renewed file is used at once.
        return _one_line(text, f"kafka.sasl_oauth_token_file: {self._path} has"), 0.0


class FromEndpoint:
    """An OIDC token endpoint, asked by client credentials (RFC 6749, 4.4).

    ``context`` verifies an https endpoint.
    """

    def __init__(self, url: str, client_id: str, secret: str, scope: str, context: ssl.SSLContext) -> None:
        self._url, self._context = url, context
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        self._form = urllib.parse.urlencode(form).encode()
        # RFC 6749, 2.3.1: both parts are form-encoded before they are joined.
        login = f"{urllib.parse.quote_plus(client_id)}:{urllib.parse.quote_plus(secret)}"
        self._login = "Basic " + base64.b64encode(login.encode()).decode()

    def fetch(self) -> tuple[str, float | None]:
        headers = {"Authorization": self._login, "Accept": "application/json"}
        request = urllib.request.Request(self._url, self._form, headers)
        key = f"kafka.sasl_oauth_token_endpoint: {self._url}"
        try:
            with urllib.request.urlopen(request, timeout=SOURCE_WITHIN, context=self._context) as response:
                answer = json.loads(response.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            said = error.read(200).decode(errors="replace").strip()
            hint = "; check sasl_oauth_client_id and the secret" if error.code in (400, 401, 403) else ""
            raise TokenUnavailable(f"{key} answered {error.code}{hint}: {said}") from None
        except OSError as error:  # URLError is one
            raise TokenUnavailable(f"{key}: {getattr(error, 'reason', error)}") from None
        except ValueError:
            raise TokenUnavailable(f"{key}: the answer is not JSON") from None
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token:
            raise TokenUnavailable(f"{key}: the answer has no access_token")
        lasts = answer.get("expires_in")
        return token, float(lasts) if isinstance(lasts, int | float) else None


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Gives aiokafka a token for each new connection. All clients of a process share it, in any thread and event loop.

    extensions: SASL extensions (RFC 7628), such as ``logicalCluster`` and ``identityPoolId`` of Confluent Cloud.
    wall, clock: the wall clock and the monotonic clock (seconds).
    """

    def __init__(
        self,
        source: TokenSource,
        extensions: Mapping[str, str],
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._extensions = source, dict(extensions)
        self._wall, self._clock = wall, clock
        self._lock = threading.Lock()
        self._token, self._renew_at = "", 0.0
        conn.OAuthAuthenticator = CheckedAuthenticator

    async def token(self) -> str:
        """A token that is valid for at least a fifth of its lifetime. Raises TokenUnavailable."""
        return await asyncio.get_running_loop().run_in_executor(None, self.fetch)

    def fetch(self) -> str:
        """The same, blocking."""
        with self._lock:  # those who wait use the token that the first one gets
            if self._clock() >= self._renew_at:
                self._token, lasts = self._source.fetch()
                if lasts is None:
                    ends = expiry(self._token)
                    lasts = KEPT if ends is None else ends - self._wall()
                self._renew_at = self._clock() + RENEW_AT * max(0.0, lasts)
            return self._token

    def extensions(self) -> dict[str, str]:
        """The extensions that are sent with each token."""
        return self._extensions


class CheckedAuthenticator(conn.OAuthAuthenticator):  # type: ignore[misc]
    """aiokafka's exchange for OAUTHBEARER, which notices that a token is refused.

    A broker answers a bad token with a JSON text, and not with an error code (RFC 7628, 3.2.2). aiokafka 0.14 takes any
    answer for success; the broker then closes the connection at the next request, and nobody learns why.
    """

    async def step(self, payload: bytes | None) -> Any:
        """The next message. Raises SaslAuthenticationFailed if the broker has refused the token."""
        if payload:
            raise SaslAuthenticationFailed(payload.decode(errors="replace"))
        return await super().step(payload)


def expiry(token: str) -> float | None:
    """When a JWT expires (epoch seconds); None for any other token, or one without ``exp``. No signature is checked."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    ends = claims.get("exp") if isinstance(claims, dict) else None
    return float(ends) if isinstance(ends, int | float) and not isinstance(ends, bool) else None


def _one_line(text: bytes, where: str) -> str:
    """The token in ``text``. Raises TokenUnavailable unless it is one line of printable ASCII characters."""
    try:
        token = text.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise TokenUnavailable(f"{where} no token: one line without spaces is expected")
    return token
