"""Descriptors of Protobuf schemas: imports from everywhere they may come from, and schemas that protoc refuses."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from failsoft.models.vetting.bounded_process import Limits
from failsoft.schemas.formats.protobuf import compile_protobuf
from failsoft.schemas.formats.reader import WantedFields
from failsoft.schemas.formats.registered import MAX_SCHEMA, Reference, Unusable
from failsoft.workers.schema_registry import protoc
from failsoft.workers.schema_registry.protoc import ProtocFailed, descriptors
from tests import golden
from tests.protobuf_schemas import EVENT, registered

PLACE = Reference("shop/place.proto", 'syntax = "proto3"; package shop; message Place { string city = 1; }')
TEXT = 'syntax = "proto3"; import "shop/place.proto"; message Event { string id = 1; shop.Place place = 2; }'


def in_base64(made: bytes, name: str) -> str:
    """The descriptor of a file, as Confluent's clients for Python and C register it."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    (file,) = (each for each in FileDescriptorSet.FromString(made).file if each.name == name)
    return base64.b64encode(file.SerializeToString()).decode()


async def test_imports_are_found() -> None:
    """A schema may import Google's and Confluent's files, and its references."""
    made = await descriptors(registered(EVENT))
    assert compile_protobuf(registered(EVENT), made, WantedFields()).value(b"\0")["id"] == ""
    loan = golden.schema("loan.proto")
    assert len(await descriptors(loan)) > 1000


async def test_a_schema_or_a_reference_may_be_a_descriptor() -> None:
    """A registry gives back what was registered: of some clients a descriptor in base64."""
    made = await descriptors(registered(TEXT, PLACE))
    root = in_base64(made, "schema-of-events.proto")
    place = Reference(PLACE.name, in_base64(made, PLACE.name))
    for schema in (registered(root, place), registered(root, PLACE), registered(TEXT, place)):
        again = await descriptors(schema)
        found = compile_protobuf(schema, again, WantedFields()).value(b"\0\x0a\1x\x12\3\x0a\1y")
        assert found == {"id": "x", "place": {"city": "y"}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no schema!", 'protoc refuses it: 1:1: Expected top-level statement (e.g. "message")'),
        ("AAAA", "neither a .proto file nor a descriptor in base64"),
        ('syntax = "proto3"; message A { B b = 1; }', 'protoc refuses it: 1:32: "B" is not defined.'),
        ('import "/etc/hostname";', "protoc refuses it: /etc/hostname: File not found.; 1:1: Import"),
        ('import "../given.bin";', 'protoc refuses it: ../given.bin: Backslashes, consecutive slashes, ".", or ".."'),
        ('import "schema-of-events.proto";', "protoc refuses it: 1:1: File recursively imports"),
        ("message A {" * 5000, "protoc refuses it: 1:"),
    ],
)
async def test_protocs_words(text: str, why: str) -> None:
    """A schema that protoc refuses is unusable, with its first errors on one line."""
    with pytest.raises(Unusable) as raised:
        await descriptors(registered(text))
    assert why in str(raised.value)
    assert len(str(raised.value)) < 600 and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        *("../x.proto", "/etc/x.proto", "a/../x.proto", "a/./x.proto", "a//x.proto", "x", "a\nb.proto", "x\0.proto"),
        *(".proto", "schema-of-events.proto", "schema-of-events.proto/x.proto", "a" * 300 + ".proto"),
    ],
)
async def test_a_reference_is_a_file_of_its_own(name: str) -> None:
    """The name of a reference cannot lead out of the folder, nor onto another file."""
    with pytest.raises(Unusable, match="reference"):
        await descriptors(registered(TEXT, PLACE, Reference(name, PLACE.text)))


async def test_bounds() -> None:
    """A schema that is too large, or has too many references, is not given to protoc."""
    with pytest.raises(Unusable, match="over the limit of 1000000"):
        await descriptors(registered(TEXT, Reference("shop/place.proto", "x" * MAX_SCHEMA)))
    with pytest.raises(Unusable, match="1001 references"):
        await descriptors(registered(TEXT, *(Reference(f"{i}.proto", "") for i in range(1001))))


async def test_what_takes_too_long_is_no_fault_of_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not end in time, or is killed, says nothing about the schema."""
    monkeypatch.setattr(protoc, "LIMITS", Limits(wall=0.01))
    with pytest.raises(ProtocFailed, match=r"not done within 0\.01 s"):
        await descriptors(registered(TEXT, PLACE))


async def test_a_references_google_files_are_protocs_own(tmp_path: Path) -> None:
    """Files of google/protobuf that were registered do not take the place of protoc's."""
    text = (
        'syntax = "proto3"; import "google/protobuf/timestamp.proto"; message E { google.protobuf.Timestamp at = 1; }'
    )
    schema = registered(text, Reference("google/protobuf/timestamp.proto", "not a schema"))
    assert b"nanos" in await descriptors(schema)


async def test_several_at_once() -> None:
    """Schemas that are met at once are compiled one after the other."""
    both = await asyncio.gather(*(descriptors(registered(f"message {name} {{}}")) for name in "AB"))
    assert [b"A" in made for made in both] == [True, False]
