"""Packages that a format needs and that are not installed are one line with the command that installs them."""

from __future__ import annotations

import sys

import pytest

from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.formats.reader import WantedFields
from failsoft.schemas.formats.registered import Registered, SchemaType, Unusable
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers.schema_registry.compiling import compile_reader
from failsoft.workers.schema_registry.packages import check_packages, lacking

AVRO, PROTOBUF = WireFormat.AVRO, WireFormat.PROTOBUF


@pytest.mark.parametrize(
    ("format", "package"), [(AVRO, "fastavro"), (PROTOBUF, "google.protobuf"), (PROTOBUF, "grpc_tools")]
)
async def test_what_is_missing_is_said_with_the_command(
    monkeypatch: pytest.MonkeyPatch, format: WireFormat, package: str
) -> None:
    """At the start of a worker and of a command; and for a CloudEvent's schema on a topic of JSON."""
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"{format} needs packages that are not installed: pip install 'failsoft\[{format}\]'$"
    with pytest.raises(Refused, match=rf"output.format: {said}"):
        check_packages("output.format", format)
    with pytest.raises(Unusable, match=rf"^{said}"):
        await compile_reader(Registered(1, SchemaType(format.upper()), ""), WantedFields(), WireFormat.JSON)


def test_json_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a package around the one that is needed have to be there."""
    for package in ("fastavro", "google", "grpc_tools"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "google.protobuf", raising=False)
    assert lacking(WireFormat.JSON) is None
    assert lacking(WireFormat.PROTOBUF) is not None
