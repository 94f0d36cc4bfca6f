"""A client of a schema registry (Confluent's API): small, and bounded in time and bytes."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import aiohttp
import yarl

from failsoft.schemas import wire
from failsoft.schemas.config.duration import seconds
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.formats.framing import named
from failsoft.schemas.formats.registered import Registered, SchemaRef, SchemaType, Unusable
from failsoft.topics.connection.tls import PemContext, UnusablePem
from failsoft.workers.connection import FILE
from failsoft.workers.schema_registry.answers import (
    MAX_ANSWER,
    MAX_REFERENCES,
    RubbishAnswer,
    SchemaAnswer,
    SubjectVersion,
    VersionReference,
    assemble,
    is_not_found,
    read_id,
    read_incompatibilities,
    read_object,
    read_schema,
    words,
)
from failsoft.workers.schema_sections import SchemaRegistry

COMMAND_DEADLINE = 10.0
"""Seconds for one call of a command: people can wait, and registering takes longer than reading."""

CONNECTIONS = 8
"""Connections to a registry at once. A worker asks once for each schema; references are asked for side by side."""

Answer = TypeVar("Answer")

_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_LONGEST = 400
"""Characters of an error's text. A failure's message in a header has at most 500 bytes."""

_REFUSALS = (400, 409, 422)
"""Statuses by which a registry refuses what it was given, and not who asks."""


class SchemaNotFound(Exception):
    """The registry answers, and has no such schema."""


class RegistryUnavailable(Exception):
    """No address gave an answer of a registry in time. The text names each address and what it did."""


class RegistryRefusal(Exception):
    """The registry refuses what it was given. The text is its own."""


class RegistryClient:
    """Asks the registry of ``[schema_registry]``. Used by one event loop; connects when it is first asked.

    The addresses are tried in turn within one deadline, beginning with the one that answered last; what is left of the
    deadline is shared by those that are left, so that one that hangs does not take it all. Redirects are not followed,
    proxies of the environment are not used, an answer has at most MAX_ANSWER bytes, and cookies are not kept. Nothing
    is tried twice: the caller has a breaker.

    section: the section; its ``url`` must be set. folder: the pipeline file's, where a relative ``ssl_cafile`` is.
    deadline: seconds of one call with all its requests; left out: the section's. Commands give COMMAND_DEADLINE.

    Raises Refused for a certificate file that cannot be used.
    """

    def __init__(self, section: SchemaRegistry, folder: Path, deadline: float | None = None) -> None:
        if section.url is None:
            raise ValueError("[schema_registry] has no url: there is no registry to ask")
        self._addresses = section.url.split(",")
        self._deadline = seconds(section.deadline) if deadline is None else deadline
        self._headers = {"Accept": f"{_CONTENT_TYPE}, application/json", "Accept-Encoding": "identity"}
        self._headers |= _authorization(section)
        self._ssl = _context(section, folder) if any(a.startswith("https:") for a in self._addresses) else None
        self._session: aiohttp.ClientSession | None = None
        self._answered: dict[str, str] = {}  # by address: the path of a schema that it has given

    async def schema(self, ref: SchemaRef) -> Registered:
        """The schema of an id or GUID, with all that it refers to.

        Raises SchemaNotFound, RegistryUnavailable, and Unusable for one that cannot be used.
        """
        path = f"/schemas/ids/{ref}" if isinstance(ref, int) else f"/schemas/guids/{quote(ref, safe='')}"
        return await _about(named(ref), self._schema(path, ref))

    async def latest(self, subject: str) -> Registered:
        """The newest schema of a subject; its ``ref`` is its id. Raises as ``schema`` does."""
        path = f"/subjects/{quote(subject, safe='')}/versions/latest"
        return await _about(f"subject {subject}", self._schema(path))

    async def register(
        self, subject: str, type: SchemaType, text: str, references: Sequence[VersionReference] = ()
    ) -> int:
        """Register a schema under a subject, and give its id; a schema that is registered there keeps its id.

        Raises RegistryUnavailable, and RegistryRefusal with the registry's words: the schema is invalid or not
        compatible.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        return await _about(f"subject {subject}", self._ask(path, read_id, self._end(), _body(type, text, references)))

    async def incompatibilities(
        self, subject: str, type: SchemaType, text: str, references: Sequence[VersionReference] = ()
    ) -> list[str]:
        """Why the registry would refuse a schema as the next of a subject, in its words; empty: it would not.

        A subject without a schema takes any. Raises RegistryUnavailable, and RegistryRefusal for an invalid schema.
        """
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest?verbose=true"
        body = _body(type, text, references)
        try:
            return await _about(f"subject {subject}", self._ask(path, read_incompatibilities, self._end(), body))
        except SchemaNotFound:
            return []

    async def close(self) -> None:
        """Close the connections. May be called twice, and before anything was asked."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- one call -------------------------------------------------------------------------------------------------

    def _end(self) -> float:
        """When a call that begins now must end, on the event loop's clock."""
        return asyncio.get_running_loop().time() + self._deadline

    async def _schema(self, path: str, ref: SchemaRef | None = None) -> Registered:
        """The schema at ``path`` with all that it refers to; ``ref``: how it was asked for, None: tell its id."""
        end = self._end()

        def read(value: Mapping[str, Any]) -> SchemaAnswer:
            schema = read_schema(value)
            if (ref is None and schema.id is None) or (isinstance(ref, int) and schema.id not in (None, ref)):
                raise RubbishAnswer(f"the answer's id is {schema.id}")
            return schema

        schema = await self._ask(path, read, end)
        found: dict[SubjectVersion, SchemaAnswer] = {}
        wanted = {each.of for each in schema.references}
        while wanted:
            if len(found) + len(wanted) > MAX_REFERENCES:
                raise Unusable(f"it refers to more than {MAX_REFERENCES} schemas")
            asked = sorted(wanted)
            found |= zip(asked, await _all(self._referred(each, end) for each in asked), strict=True)
            wanted = {each.of for one in asked for each in found[one].references} - found.keys()
        return assemble(cast(int, schema.id) if ref is None else ref, schema, found)

    async def _referred(self, of: SubjectVersion, end: float) -> SchemaAnswer:
        # Deleted ones too: a schema that refers to one stays valid, and its events stay on their topic.
        path = f"/subjects/{quote(of.subject, safe='')}/versions/{of.version}?deleted=true"
        return await _about(f"it refers to {of}", self._ask(path, read_schema, end))

    async def _ask(
        self, path: str, read: Callable[[Mapping[str, Any]], Answer], end: float, body: bytes | None = None
    ) -> Answer:
        """The answer of the first address that gives one: what ``read`` makes of it, which may raise RubbishAnswer.

        A ``body`` is posted. Where one address lacks a schema the others are asked too: a follower may be behind its
        leader. ``end`` is on the event loop's clock.
        """
        loop = asyncio.get_running_loop()
        problems: list[str] = []
        missing: SchemaNotFound | None = None
        for i, address in enumerate(addresses := list(self._addresses)):
            left = max(0.0, (end - loop.time()) / (len(addresses) - i))
            try:
                async with asyncio.timeout(left):
                    found = read(await self._request(address, path, body))
            except SchemaNotFound as error:
                missing = missing or error
            except TimeoutError:
                problems.append(f"{address} did not answer within {left:.3g} s")
            except (RubbishAnswer, aiohttp.ClientError, OSError) as error:
                problems.append(f"{address}: {_problem(error)}")
            else:
                if body is None:
                    self._answered[address] = path
                if address != self._addresses[0]:
                    self._addresses = [address, *(each for each in self._addresses if each != address)]
                return found
        if missing is not None:
            raise missing
        raise RegistryUnavailable("; ".join(problems))

    async def _request(self, address: str, path: str, body: bytes | None) -> dict[str, Any]:
        """The object in one answer 200. Raises SchemaNotFound, RegistryRefusal, RubbishAnswer, and aiohttp's errors."""
        # Encoded already: a subject's slash must stay %2F.
        url = yarl.URL(address + path, encoded=True)
        method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": _CONTENT_TYPE})
        async with self._connected().request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            raw = await _bounded(response)
            status = response.status
            if status == 200:
                return read_object(raw)
            media = response.headers.get("content-type", "")
            if status == 404 and (is_not_found(raw, media) or await self._answers_still(address, path)):
                raise SchemaNotFound(f"{address} does not have it: {words(raw) or 'status 404'}")
            if 300 <= status < 400:
                to = response.headers.get("location", "nowhere")[:200]
                raise RubbishAnswer(f"status {status}, a redirect to {to}; redirects are not followed")
            if status in _REFUSALS and body is not None:
                raise RegistryRefusal(words(raw) or f"status {status}")
            raise RubbishAnswer(f"status {status}{_hint(status)}: {words(raw)}")

    async def _answers_still(self, address: str, path: str) -> bool:
        """Whether ``address`` gives a schema that it has given before: then a 404 of ``path`` is no outage, whatever
        its words are.
        """
        known = self._answered.get(address, path)
        if known == path:
            return False
        try:
            await self._request(address, known, None)
        except (SchemaNotFound, RegistryRefusal, RubbishAnswer):
            return False
        return True

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # True: the default verification; it matters for https only, and then there is a context.
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._ssl or True),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # the deadlines above are the only ones
                auto_decompress=False,  # few bytes could become very many
                trust_env=False,
            )
        return self._session


async def _about(what: str, call: Awaitable[Answer]) -> Answer:
    """Await ``call``; its errors say what it was about."""
    try:
        return await call
    except (SchemaNotFound, RegistryUnavailable, RegistryRefusal, Unusable) as error:
        # Bytes of a header that are no UTF-8 are surrogates in its text, and no record could be written with them.
        told = f"{what}: {error}".encode(errors="replace").decode()
        raise type(error)(told[:_LONGEST]) from None


async def _all(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """Await all ``calls`` side by side. The first error cancels the others and is raised."""
    tasks = [asyncio.ensure_future(each) for each in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The answer's body. Raises RubbishAnswer for one of more than MAX_ANSWER bytes, without reading it all."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise RubbishAnswer(f"an answer in the encoding {encoding[:50]}, which was not asked for")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_ANSWER:
            response.close()
            raise RubbishAnswer(f"an answer of more than {MAX_ANSWER:,} bytes")
    return bytes(body)


def _body(type_: SchemaType, text: str, references: Iterable[VersionReference]) -> bytes:
    told: dict[str, Any] = {"schema": text}
    if type_ is not SchemaType.AVRO:  # as Confluent's own clients: registries from before other types know no field
        told["schemaType"] = type_.value
    if listed := [each.to_dict() for each in references]:
        told["references"] = listed
    return wire.dumps(told)


def _problem(error: Exception) -> str:
    """What an address did, for a message. Never has what was sent."""
    if isinstance(error, RubbishAnswer):
        return str(error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted (schema_registry.ssl_cafile): {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot be reached: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    return str(error) or type(error).__name__


def _hint(status: int) -> str:
    if status == 401:
        return " (schema_registry.username and its password, or schema_registry.bearer_token)"
    return " (the address may have to end with a path)" if status == 404 else ""


def _authorization(section: SchemaRegistry) -> dict[str, str]:
    if section.bearer_token is not None:
        return {"Authorization": f"Bearer {section.bearer_token.get_secret_value()}"}
    if section.username is None:
        return {}
    password = "" if section.password is None else section.password.get_secret_value()
    login = f"{section.username}:{password}".encode()  # RFC 7617: UTF-8
    return {"Authorization": "Basic " + base64.b64encode(login).decode()}


def _context(section: SchemaRegistry, folder: Path) -> ssl.SSLContext:
    try:
        return PemContext.of(str(folder / section.ssl_cafile) if section.ssl_cafile else "", section="schema_registry")
    except UnusablePem as error:
        raise Refused(FILE, [f"schema_registry.{error.key}: {error}"]) from None
