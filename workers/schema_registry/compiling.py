"""Makes the reader of a schema, whatever its format."""

from __future__ import annotations

import asyncio

from failsoft.schemas.formats.avro import compile_avro
from failsoft.schemas.formats.protobuf import compile_protobuf
from failsoft.schemas.formats.reader import SchemaReader, WantedFields
from failsoft.schemas.formats.registered import Registered, SchemaType, Unusable
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers.schema_registry.packages import lacking
from failsoft.workers.schema_registry.protoc import descriptors


async def compile_reader(registered: Registered, wanted: WantedFields, format: WireFormat) -> SchemaReader:
    """The reader of a schema's values on a topic of this format.

    Takes a tenth of a second, and for the largest schemas some seconds: threads and processes do it. Raises Unusable,
    also for a schema of another kind than the format, and ProtocFailed if protoc could not be run.
    """
    own = registered.type.wire_format
    if format is not WireFormat.JSON and own is not format:
        raise Unusable(f'its type is {registered.type}, and [input] format is "{format}"')
    if own is WireFormat.JSON:  # which is read without its schema
        raise Unusable(f"its type is {registered.type}, and the CloudEvent that names it has Avro or Protobuf")
    why = lacking(own)
    if why is not None:
        raise Unusable(why)
    if registered.type is SchemaType.AVRO:
        return await asyncio.to_thread(compile_avro, registered, wanted)
    made = await descriptors(registered)
    return await asyncio.to_thread(compile_protobuf, registered, made, wanted)
