"""Makes the reader of a schema, whatever its format."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.formats.avro import compile_avro
from failsoft.schemas.formats.protobuf import compile_protobuf
from failsoft.schemas.formats.reader import SchemaReader, WantedFields
from failsoft.schemas.formats.registered import Registered, SchemaType, Unusable
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers.connection import FILE
from failsoft.workers.schema_registry.protoc import descriptors

_TYPES = {
    WireFormat.AVRO: frozenset({SchemaType.AVRO}),
    WireFormat.PROTOBUF: frozenset({SchemaType.PROTOBUF}),
    # JSON is read without its schema. CloudEvents on such a topic may have data in the other formats.
    WireFormat.JSON: frozenset({SchemaType.AVRO, SchemaType.PROTOBUF}),
}
_PACKAGES = {WireFormat.AVRO: ("fastavro",), WireFormat.PROTOBUF: ("google.protobuf", "grpc_tools", "google.type")}


async def compile_reader(registered: Registered, wanted: WantedFields, format: WireFormat) -> SchemaReader:
    """The reader of a schema's values on a topic of this format.

    Takes a tenth of a second, and for the largest schemas some seconds: threads and processes do it. Raises Unusable,
    also for a schema of another kind than the format, and ProtocFailed if protoc could not be run.
    """
    if registered.type not in _TYPES[format]:
        if format is WireFormat.JSON:
            raise Unusable(f"its type is {registered.type}, and the CloudEvent that names it has Avro or Protobuf")
        raise Unusable(f'its type is {registered.type}, and [input] format is "{format}"')
    own = WireFormat(registered.type.lower())
    if any(map(_missing, _PACKAGES.get(own, ()))):
        raise Unusable(f"it needs more packages: pip install 'failsoft[{own}]'")
    if registered.type is SchemaType.AVRO:
        return await asyncio.to_thread(compile_avro, registered, wanted)
    made = await descriptors(registered)
    return await asyncio.to_thread(compile_protobuf, registered, made, wanted)


def check_packages(format: WireFormat) -> None:
    """Raises Refused where packages that read this format are not installed."""
    for package in _PACKAGES.get(format, ()):
        if _missing(package):
            raise Refused(FILE, [f"input.format: \"{format}\" needs more packages: pip install 'failsoft[{format}]'"])


def _missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:  # not even the package around it
        return True
