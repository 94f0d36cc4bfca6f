"""The client of a schema registry: answers, references, and each way in which a registry fails."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.formats.registered import Reference, Registered, SchemaType, Unusable
from failsoft.workers.schema_registry.answers import MAX_REFERENCES, is_not_found
from failsoft.workers.schema_registry.client import (
    RegistryClient,
    RegistryRefusal,
    RegistryUnavailable,
    SchemaNotFound,
)
from failsoft.workers.schema_sections import SchemaRegistry
from tests.registry_server import Failing, RegistryServer

NOBODY = "http://127.0.0.1:1"
LONG = '{"type":"record","name":"Long","doc":"' + "x" * 200 + '","fields":[]}'

BROKEN = {
    Failing.ERROR_500: "status 500: Error in the backend datastore",
    Failing.ERROR_503: "status 503: no healthy upstream",
    Failing.NOTHING_404: "status 404 (the address may have to end with a path)",
    Failing.UNAUTHORIZED: "status 401 (schema_registry.username and its password, or schema_registry.bearer_token)",
    Failing.FORBIDDEN: "status 403: User is denied operation Read",
    Failing.HANG: "did not answer within 0.3 s",
    Failing.DRIP: "did not answer within 0.3 s",
    Failing.HTML: "the answer is '<html><body>Please sign in",
    Failing.RUBBISH: "`schema` is no text",
    Failing.NOT_JSON: "not JSON",
    Failing.HUGE: "an answer of more than 2,100,000 bytes",
    Failing.ENDLESS: "an answer of more than 2,100,000 bytes",
    Failing.REDIRECT: "a redirect to ",
    Failing.CLOSE: "it closed the connection without an answer",
}


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@asynccontextmanager
async def client(
    url: str, deadline: str = "300ms", folder: Path = Path(), **keys: Any
) -> AsyncIterator[RegistryClient]:
    asking = RegistryClient(SchemaRegistry(url=url, deadline=deadline, **keys), folder)
    try:
        yield asking
    finally:
        await asking.close()


async def test_a_schema_comes_by_its_id_by_its_guid_and_as_the_latest(registry: RegistryServer) -> None:
    """The ref is what was asked for; of the latest it is the id. Avro's type is left out in answers."""
    old = registry.register("a/b value", "AVRO", '"int"')
    new = registry.register("a/b value", "JSON", "{}")
    async with client(registry.url) as asking:
        assert await asking.schema(old) == Registered(old, SchemaType.AVRO, '"int"')
        guid = registry.guid(new)
        assert await asking.schema(guid) == Registered(guid, SchemaType.JSON, "{}")
        assert await asking.latest("a/b value") == Registered(new, SchemaType.JSON, "{}")


async def test_what_the_registry_does_not_have_is_not_found(registry: RegistryServer) -> None:
    """The error names the id, the GUID or the subject."""
    async with client(registry.url) as asking:
        with pytest.raises(SchemaNotFound, match=r"^schema id 7: http://.* does not have it: Schema not found$"):
            await asking.schema(7)
        with pytest.raises(SchemaNotFound, match="schema x/y: "):
            await asking.schema("x/y")
        with pytest.raises(SchemaNotFound, match=r"subject s: .*Subject 's' not found"):
            await asking.latest("s")


async def test_404_of_something_that_is_no_registry_is_not_a_missing_schema(registry: RegistryServer) -> None:
    """A wrong path, or a proxy without a backend, must not send good events to the dead letters."""
    async with client(registry.url + "/wrong/path") as asking:
        with pytest.raises(RegistryUnavailable, match=r"status 404 \(the address may have to end with a path\)"):
            await asking.schema(registry.register("s", "AVRO", '"int"'))


async def test_404_in_other_words_is_a_missing_schema_while_the_address_gives_others(registry: RegistryServer) -> None:
    """Some servers have no words, or a page, for what they lack. One that gives nothing any more is down."""
    known = registry.register("s", "AVRO", '"int"')
    async with client(registry.url) as asking:
        registry.failing = Failing.MISSING_PAGE
        with pytest.raises(RegistryUnavailable, match="status 404"):
            await asking.schema(known + 1)
        await asking.schema(known)
        with pytest.raises(SchemaNotFound, match="does not have it: "):
            await asking.schema(known + 1)
        registry.failing = Failing.NOTHING_404
        with pytest.raises(RegistryUnavailable, match="status 404"):
            await asking.schema(known + 1)


def test_a_404_is_told_by_its_words() -> None:
    """Confluent's code of a missing schema, and no words of JSON at all, are a registry's; what gateways say is not."""
    media = "application/vnd.schemaregistry.v1+json"
    for missing in (b'{"error_code":40403,"message":"Schema 7 not found"}', b""):
        assert is_not_found(missing, media)
    assert not is_not_found(b"", "") and not is_not_found(b"", "text/plain")
    for other in (
        b'{"message":"no Route matched with those values"}',
        b'{"message":"Not Found"}',
        b'{"error_msg":"404 Route Not Found"}',
        b'{"error_code":404,"message":"HTTP 404 Not Found"}',
        b'{"detail":"NotFoundException: RESTEASY003210: Could not find resource","status":404}',
        b"default backend - 404",
        b"<html>404</html>",
    ):
        assert not is_not_found(other, media)


@pytest.mark.parametrize("failing", [*BROKEN])
async def test_a_registry_that_fails_is_unavailable_within_the_deadline(
    registry: RegistryServer, failing: Failing
) -> None:
    """The error says which address, and what it did. Nothing is asked twice, and no redirect is followed."""
    id_ = registry.register("s", "AVRO", LONG)
    with RegistryServer() as elsewhere:
        registry.redirect_to = f"{elsewhere.url}/schemas/ids/{id_}"
        registry.failing = failing
        begun = time.monotonic()
        async with client(registry.url) as asking:
            with pytest.raises(RegistryUnavailable) as raised:
                await asking.schema(id_)
            assert time.monotonic() - begun < 3.0
            registry.failing = None
            assert (await asking.schema(id_)).text == LONG
        assert elsewhere.asked == 0
    assert str(raised.value).startswith(f"schema id {id_}: {registry.url}")
    assert BROKEN[failing] in str(raised.value)
    assert len(str(raised.value)) <= 400
    assert registry.asked <= 3  # a closed connection that was kept open may be tried again by aiohttp


async def test_the_text_of_an_error_can_be_written_to_a_record(registry: RegistryServer) -> None:
    """A header of the answer may have bytes that are no UTF-8; they must not reach alerts and dead letters as such."""
    registry.failing, registry.redirect_to = Failing.REDIRECT, "http://\xff/"
    async with client(registry.url) as c:
        with pytest.raises(RegistryUnavailable, match=r"a redirect to http://\?/") as raised:
            await c.schema(7)
    assert str(raised.value).encode()


async def test_the_next_address_is_asked_within_the_same_deadline(registry: RegistryServer) -> None:
    """One that refuses, hangs or answers rubbish does not hide the others; the one that answered comes first then."""
    id_ = registry.register("s", "AVRO", '"int"')
    with RegistryServer() as sick:
        for failing in (Failing.HANG, Failing.RUBBISH, Failing.HTML, Failing.UNAUTHORIZED):
            sick.failing = failing
            async with client(f"{NOBODY}, {sick.url}, {registry.url}", "600ms") as asking:
                asked = sick.asked
                assert (await asking.schema(id_)).text == '"int"'
                assert (await asking.schema(id_)).text == '"int"'
                assert sick.asked == asked + 1
        async with client(f"{NOBODY}, {sick.url}") as asking:
            with pytest.raises(RegistryUnavailable, match=r"127.0.0.1:1: cannot be reached.*; .*: status 401"):
                await asking.schema(id_)


async def test_a_schema_that_one_address_lacks_may_be_known_to_another(registry: RegistryServer) -> None:
    """A follower may be behind its leader. Only if no address has it, it is not found."""
    id_ = registry.register("s", "AVRO", '"int"')
    with RegistryServer() as behind:
        async with client(f"{behind.url},{registry.url}") as asking:
            assert (await asking.schema(id_)).text == '"int"'
            with pytest.raises(SchemaNotFound):
                await asking.schema(99)
        registry.stop()
        async with client(f"{behind.url},{registry.url}") as asking:
            with pytest.raises(SchemaNotFound):
                await asking.schema(id_)


async def test_references_come_with_a_schema_each_after_its_own(registry: RegistryServer) -> None:
    """Also indirect ones; one that two refer to is asked for and listed once."""
    registry.register("d", "PROTOBUF", "D")
    to_d = {"name": "d.proto", "subject": "d", "version": 1}
    registry.register("b", "PROTOBUF", "B", [to_d])
    to_b = {"name": "b.proto", "subject": "b", "version": 1}
    registry.register("c", "PROTOBUF", "C", [to_d, to_b])
    to_c = {"name": "c.proto", "subject": "c", "version": 1}
    top = registry.register("a", "PROTOBUF", "A", [to_b, to_c])
    async with client(registry.url) as asking:
        found = await asking.schema(top)
    expected = (Reference("d.proto", "D"), Reference("b.proto", "B"), Reference("c.proto", "C"))
    assert found == Registered(top, SchemaType.PROTOBUF, "A", expected)
    assert registry.requests["GET /subjects/d/versions/1"] == 1


async def test_references_that_make_a_schema_unusable_are_refused(registry: RegistryServer) -> None:
    """A cycle, too many, and one name for two schemas. A missing one is not found."""
    registry.put(1, "PROTOBUF", "A", [{"name": "b", "subject": "b", "version": 1}], subject="a")
    registry.put(2, "PROTOBUF", "B", [{"name": "a", "subject": "a", "version": 1}], subject="b")
    many = [{"name": f"m{i}", "subject": f"m{i}", "version": 1} for i in range(MAX_REFERENCES + 1)]
    registry.put(3, "PROTOBUF", "M", many)
    registry.put(4, "PROTOBUF", "X", subject="x")
    registry.put(5, "PROTOBUF", "Y", subject="y")
    registry.put(6, "PROTOBUF", "T", [{"name": "n", "subject": s, "version": 1} for s in "xy"])
    registry.put(7, "PROTOBUF", "G", [{"name": "gone", "subject": "gone", "version": 3}])
    async with client(registry.url) as asking:
        for id_, why in ((1, "refers to itself"), (3, f"more than {MAX_REFERENCES}"), (6, "n means subject x, ver")):
            with pytest.raises(Unusable, match=f"^schema id {id_}: .*{why}"):
                await asking.schema(id_)
        with pytest.raises(SchemaNotFound, match="schema id 7: it refers to subject gone, version 3: "):
            await asking.schema(7)


async def test_the_deadline_is_of_all_requests_of_a_look_up(registry: RegistryServer) -> None:
    """A reference that hangs does not get a deadline of its own."""
    registry.register("d", "AVRO", '"int"')
    top = registry.register("a", "AVRO", '"d"', [{"name": "d", "subject": "d", "version": 1}])
    async with client(registry.url, "500ms") as asking:
        await asking.schema(top)
        begun = time.monotonic()
        registry.failing = Failing.HANG
        with pytest.raises(RegistryUnavailable):
            await asking.schema(top)
    assert 0.4 < time.monotonic() - begun < 2.0


async def test_a_schema_of_another_kind_or_too_large_is_unusable(registry: RegistryServer) -> None:
    """Other events are not concerned, and asking again would not help."""
    registry.put(1, "THRIFT", "struct")
    registry.put(2, "JSON", '"' + "x" * 1_100_000 + '"')
    async with client(registry.url, "2s") as asking:
        with pytest.raises(Unusable, match="schema id 1: its type is THRIFT; failsoft reads AVRO, PROTOBUF, JSON"):
            await asking.schema(1)
        with pytest.raises(Unusable, match="schema id 2: 1,100,002 bytes with its references, over the limit"):
            await asking.schema(2)


async def test_a_schema_is_registered_unless_the_registry_refuses(registry: RegistryServer) -> None:
    """A refusal has the registry's words, before and at registering."""
    async with client(registry.url) as asking:
        assert await asking.incompatibilities("s", SchemaType.AVRO, '"int"') == []
        id_ = await asking.register("s", SchemaType.AVRO, '"int"')
        assert await asking.register("s", SchemaType.AVRO, '"int"') == id_
        assert registry.schema(id_).type == "AVRO"
        assert registry.schema(await asking.register("p", SchemaType.PROTOBUF, "P")).type == "PROTOBUF"
        assert await asking.incompatibilities("s", SchemaType.AVRO, '"long"') == []
        registry.incompatible = ["READER_FIELD_MISSING_DEFAULT_VALUE: score"]
        assert await asking.incompatibilities("s", SchemaType.AVRO, '"long"') == registry.incompatible
        with pytest.raises(RegistryRefusal, match=r"^subject s: READER_FIELD_MISSING_DEFAULT_VALUE: score$"):
            await asking.register("s", SchemaType.AVRO, '"long"')
        with pytest.raises(RegistryRefusal, match="subject t: Invalid schema"):
            await asking.register("t", SchemaType.AVRO, "{")
        registry.failing = Failing.RUBBISH
        with pytest.raises(RegistryUnavailable, match="the answer does not say `is_compatible`"):
            await asking.incompatibilities("s", SchemaType.AVRO, '"long"')
        with pytest.raises(RegistryUnavailable, match="the answer has no id"):
            await asking.register("s", SchemaType.AVRO, '"long"')


async def test_user_names_and_tokens_are_sent_and_never_told(registry: RegistryServer) -> None:
    """Basic and bearer authentication; a refused password is not in the error."""
    basic = "Basic " + base64.b64encode("ann:s3crét".encode()).decode()
    for expected, keys in ((basic, {"username": "ann", "password": "s3crét"}), ("Bearer t0k", {"bearer_token": "t0k"})):
        with RegistryServer(authorization=expected) as guarded:
            id_ = guarded.register("s", "AVRO", '"int"')
            async with client(guarded.url, "300ms", Path(), **keys) as asking:
                assert (await asking.schema(id_)).text == '"int"'
    with RegistryServer(authorization="Basic other") as guarded:
        async with client(guarded.url, username="ann", password="s3cret") as asking:
            with pytest.raises(RegistryUnavailable, match="status 401") as raised:
                await asking.schema(1)
    assert "s3cret" not in str(raised.value)


async def test_https_is_verified_with_the_authority_of_the_section(tmp_path: Path) -> None:
    """An unknown authority is named with the key; a file that is none is refused at once."""
    with RegistryServer(authority=trustme.CA()) as registry:
        id_ = registry.register("s", "AVRO", '"int"')
        file = registry.ca_file(tmp_path).name
        async with client(registry.url, "2s", tmp_path, ssl_cafile=file) as asking:
            assert (await asking.schema(id_)).text == '"int"'
        async with client(registry.url, "2s") as asking:
            with pytest.raises(RegistryUnavailable, match=r"is not trusted \(schema_registry.ssl_cafile\)"):
                await asking.schema(id_)
        with pytest.raises(Refused, match=r"schema_registry.ssl_cafile: .*no such file"):
            async with client(registry.url, folder=tmp_path, ssl_cafile="none.pem"):
                pass


async def test_proxies_of_the_environment_are_not_used(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry is inside the network, and its password would go to the proxy."""
    monkeypatch.setenv("http_proxy", NOBODY)
    monkeypatch.delenv("no_proxy", raising=False)
    async with client(registry.url) as asking:
        assert (await asking.schema(registry.register("s", "AVRO", '"int"'))).text == '"int"'


async def test_a_registry_that_comes_back_is_used_again(registry: RegistryServer) -> None:
    """Connections that the registry's death closed do not count against the next look-up."""
    id_ = registry.register("s", "AVRO", '"int"')
    async with client(registry.url) as asking:
        await asking.schema(id_)
        registry.stop()
        with pytest.raises(RegistryUnavailable, match="cannot be reached"):
            await asking.schema(id_)
        registry.start()
        assert (await asking.schema(id_)).text == '"int"'
