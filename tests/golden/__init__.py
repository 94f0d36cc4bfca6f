"""Events as Confluent's own Python serializers wrote them (``make.py``), with the schemas that they name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from failsoft.schemas.formats.registered import Reference, Registered, SchemaType


@dataclass(frozen=True, slots=True)
class Golden:
    """One event as it lies in Kafka.

    Attributes:
        event: its id.
        type: the kind of its schema.
        file: its schema's file in ``schemas/``.
        message: full name of its message; None unless its schema is Protobuf.
        id: the registry's id of its schema.
        framing: "value" or "header": where the schema is named.
        headers: the record's headers.
        value: the record's value.
    """

    event: str
    type: SchemaType
    file: str
    message: str | None
    id: int
    framing: str
    headers: tuple[tuple[str, bytes], ...]
    value: bytes

    @property
    def payload(self) -> bytes:
        """What a reader of its schema gets: of Protobuf the message's indexes and the message."""
        if self.framing == "value":
            return self.value[5:]
        (_, name), *_ = self.headers
        return name[17:] + self.value


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "values.json").read_text("utf-8"))
    return found


def events(type: SchemaType | None = None, file: str | None = None, framing: str | None = None) -> list[Golden]:
    """The events of one kind, schema file or framing; all of them where none is given."""
    made = []
    for each in _file()["events"]:
        headers = tuple((key, bytes.fromhex(content)) for key, content in each["headers"])
        golden = Golden(
            each["event"],
            SchemaType(each["type"]),
            each["file"],
            each.get("message"),
            each["id"],
            each["framing"],
            headers,
            bytes.fromhex(each["value"]),
        )
        if type in (None, golden.type) and file in (None, golden.file) and framing in (None, golden.framing):
            made.append(golden)
    return made


def schemas() -> list[tuple[Registered, str]]:
    """Each schema by its id, and its GUID."""
    found = []
    for each in _file()["schemas"]:
        references = tuple(Reference(other["name"], other["schema"]) for other in each["references"])
        found.append((Registered(each["id"], SchemaType(each["type"]), each["schema"], references), each["guid"]))
    return found


def schema(file: str) -> Registered:
    """The schema of a file in ``schemas/``."""
    (id,) = {each["id"] for each in _file()["schemas"] if each["file"] == file}
    return next(registered for registered, _ in schemas() if registered.ref == id)
