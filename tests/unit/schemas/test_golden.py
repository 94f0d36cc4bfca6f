"""The golden events: what Confluent's serializers wrote is framed as the documentation of the wire format says."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from failsoft.schemas.formats.registered import SchemaType
from tests import golden

MESSAGES = {
    "shop.loans.Loan": b"\0",
    "shop.loans.Refund": b"\x02\x02",
    "shop.loans.Refund.Partial": b"\x04\x02\x02",
    "shop.payments.Payment": b"\0",
    "shop.legacy.Payment": b"\0",
}
"""The indexes of each message: their number, then each of them as a zigzag varint; one byte 0 stands for [0]."""


@pytest.mark.parametrize("framing", ["value", "header"])
@pytest.mark.parametrize("kind", list(SchemaType))
def test_every_kind_is_there_in_both_framings(kind: SchemaType, framing: str) -> None:
    """The magic byte and the id, or the magic byte and the GUID, stand where the wire format has them."""
    found = golden.events(kind, framing=framing)
    guids = {schema.ref: UUID(guid) for schema, guid in golden.schemas()}
    assert len(found) >= 3
    for each in found:
        indexes = MESSAGES[each.message] if each.message else b""
        if framing == "value":
            assert not each.headers
            assert each.value.startswith(b"\0" + each.id.to_bytes(4, "big") + indexes)
        else:
            assert each.headers == (("__value_schema_id", b"\x01" + guids[each.id].bytes + indexes),)


def test_both_framings_have_the_same_payload() -> None:
    """A reader gets the same bytes, whichever framing the producer chose."""
    by_value, by_header = (golden.events(framing=framing) for framing in ("value", "header"))

    def payloads(found: list[golden.Golden]) -> set[tuple[str, str, str | None, bytes]]:
        return {(each.event, each.file, each.message, each.payload) for each in found}

    assert payloads(by_value) == payloads(by_header)


def test_the_json_of_a_framed_value_is_json() -> None:
    """After the five bytes follows the value as a JSON pipeline reads it."""
    for each in golden.events(SchemaType.JSON):
        assert json.loads(each.payload)["event_id"] == each.event


def test_each_schema_is_whole() -> None:
    """A schema has the text of its file, and those of the schemas that it refers to."""
    loan = golden.schema("loan.avsc")
    assert [each.name for each in loan.references] == ["shop.common.Place"]
    assert json.loads(loan.references[0].text)["name"] == "Place"
    assert "message Refund" in golden.schema("loan.proto").text
    assert [each.name for each in golden.schema("loan.proto").references] == ["shop/place.proto"]
