"""Protobuf schemas for tests, and values of them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from failsoft.schemas.formats.protobuf import ProtobufReader, compile_protobuf
from failsoft.schemas.formats.reader import WantedFields
from failsoft.schemas.formats.registered import Reference, Registered, SchemaType
from failsoft.workers.schema_registry import protoc

EVENT = """
syntax = "proto3";
package shop;
import "confluent/meta.proto";
import "confluent/type/decimal.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/type/date.proto";
import "google/type/decimal.proto";
import "google/type/timeofday.proto";

enum Channel { UNKNOWN = 0; WEB = 1; SHOP = 2; }

message Event {
  string id = 1 [(confluent.field_meta).doc = "The order's number."];
  google.protobuf.Timestamp at = 2;
  Features features = 3;

  message Features {
    double amount = 1;
    float ratio = 2;
    int64 count = 3;
    bool flag = 4;
    string note = 5;
    Channel channel = 6;
    optional double income = 7;
    oneof either { int64 number = 8; string text = 9; }
    google.protobuf.DoubleValue wrapped = 10;
    google.protobuf.Timestamp seen = 11;
    google.protobuf.Duration waited = 12;
    google.protobuf.Struct extra = 13;
    confluent.type.Decimal price = 14;
    google.type.Decimal fee = 15;
    google.type.Date born = 16;
    google.type.TimeOfDay opens = 17;
    bytes pixels = 18;
    repeated float vector = 19;
    map<string, double> scores = 20;
    map<int32, Item> items = 21;
    repeated Item list = 22;
    Item item = 23;
    google.protobuf.Value any_json = 24;
    google.protobuf.Any any = 25;
    repeated Channel channels = 26;
    google.protobuf.BytesValue wrapped_bytes = 27;
  }
  message Item { string name = 1; double price = 2; Deep deep = 3; }
  message Deep { sint32 level = 1; }
}

message Other { string id = 1; Event.Features features = 3; }
"""


def registered(text: str, *references: Reference) -> Registered:
    """A schema as a registry gives it."""
    return Registered(7, SchemaType.PROTOBUF, text, references)


@cache
def descriptors(text: str, *references: Reference) -> bytes:
    """The FileDescriptorSet of a schema, made in this process."""
    with tempfile.TemporaryDirectory() as folder:
        protoc.write(registered(text, *references), Path(folder))
        assert protoc.run(Path(folder)) == 0
        return (Path(folder) / protoc.MADE).read_bytes()


def reader(wanted: WantedFields, text: str = EVENT) -> ProtobufReader:
    """A reader of a schema's values."""
    return compile_protobuf(registered(text), descriptors(text), wanted)


def message(name: str, text: str = EVENT) -> Any:
    """The class of a schema's message."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors(text)).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def value(name: str, fields: dict[str, Any], indexes: bytes = b"\0", text: str = EVENT) -> bytes:
    """A message, given as Protobuf's JSON, with its indexes before it."""
    from google.protobuf import json_format

    made: bytes = json_format.ParseDict(fields, message(name, text)()).SerializeToString()
    return indexes + made
