"""Reads the answers of a schema registry (Confluent's API), and puts a schema together with those that it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.formats.registered import MAX_SCHEMA, Reference, Registered, SchemaRef, SchemaType, Unusable

MAX_ANSWER = 2 * MAX_SCHEMA + 100_000
"""Bytes of an answer. JSON's escapes can double a schema of MAX_SCHEMA bytes; its references' names come on top."""

MAX_REFERENCES = 100
"""Schemas that one schema may refer to, also indirectly. Each is a request within one deadline."""

_LONGEST_WORDS = 300
"""Characters of a registry's own words in a message."""


class RubbishAnswer(ValueError):
    """An answer that is not a registry's. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True, order=True)
class SubjectVersion:
    """One version of a subject: what a reference between schemas points to."""

    subject: str
    version: int

    def __str__(self) -> str:
        return f"subject {self.subject}, version {self.version}"


@dataclass(frozen=True, slots=True)
class VersionReference:
    """A schema's reference to another, as registries have it.

    Attributes:
        name: what the schema calls the other one: an Avro full name, or the path of a Protobuf import.
        of: where the other one is.
    """

    name: str
    of: SubjectVersion

    def to_dict(self) -> dict[str, Any]:
        """As registries read it."""
        return {"name": self.name, "subject": self.of.subject, "version": self.of.version}


@dataclass(frozen=True, slots=True)
class SchemaAnswer:
    """A schema as one answer tells it, with references that are not looked up yet.

    Attributes:
        type: its kind.
        text: the schema.
        references: what it refers to itself.
        id: its id, where the answer tells it.
    """

    type: SchemaType
    text: str
    references: tuple[VersionReference, ...] = field(default=())
    id: int | None = None


def read_schema(value: Mapping[str, Any]) -> SchemaAnswer:
    """The schema in an answer. Raises RubbishAnswer, and Unusable for a kind of schema that failsoft does not know."""
    type_, text, told = value.get("schemaType") or "AVRO", value.get("schema"), value.get("references") or []
    id_ = value.get("id")
    if type(text) is not str or type(type_) is not str or type(told) is not list:
        raise RubbishAnswer("the answer has no schema: `schema` is no text, or a field beside it has a wrong type")
    if id_ is not None and type(id_) is not int:
        raise RubbishAnswer("the answer's `id` is no number")
    references = tuple(map(_reference, told))
    try:
        known = SchemaType(type_)
    except ValueError:
        raise Unusable(f"its type is {type_[:50]}; failsoft reads {', '.join(SchemaType)}") from None
    return SchemaAnswer(known, text, references, id_)


def read_id(value: Mapping[str, Any]) -> int:
    """The id in the answer to a registration. Raises RubbishAnswer."""
    found = value.get("id")
    if type(found) is not int:
        raise RubbishAnswer("the answer has no id")
    return found


def read_incompatibilities(value: Mapping[str, Any]) -> list[str]:
    """Why a schema is not compatible, by the answer to that question; empty: it is. Raises RubbishAnswer."""
    compatible, messages = value.get("is_compatible"), value.get("messages") or []
    if type(compatible) is not bool or type(messages) is not list:
        raise RubbishAnswer("the answer does not say `is_compatible`")
    if compatible:
        return []
    return [str(each) for each in messages] or ["the registry says that it is not compatible, and not why"]


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in an answer. Raises RubbishAnswer."""
    try:
        value = wire.loads(raw, MAX_ANSWER)
    except wire.Malformed as error:
        raise RubbishAnswer(f"the answer is {_begin(raw)}: {error}") from None
    if not isinstance(value, dict):
        raise RubbishAnswer(f"the answer is no JSON object: {_begin(raw)}")
    return value


def words(raw: bytes) -> str:
    """What an answer of an error says: the registry's message, or the beginning of any other text."""
    try:
        message = wire.loads(raw, MAX_ANSWER).get("message")
    except (wire.Malformed, AttributeError):
        message = None
    text = message if isinstance(message, str) else raw[:_LONGEST_WORDS].decode(errors="replace")
    return " ".join(text.split())[:_LONGEST_WORDS]


def is_not_found(raw: bytes, media: str) -> bool:
    """Does an answer 404 say that a registry lacks the schema? ``media``: its content type.

    A proxy's page, and what servers say of a path that they do not have, are about the address: Confluent's has the
    code 404 where a missing schema has 40403, and those of Apicurio and of gateways have no code. Taken for a missing
    schema, a gateway without a backend would send good events to the dead letters. No words at all are a registry's if
    it says that they are JSON: Apicurio answers so for a GUID, and a gateway names no type.
    """
    if not raw.strip():
        return "json" in media
    try:
        value = read_object(raw)
    except RubbishAnswer:
        return False
    return "error_code" in value and not (value["error_code"] == 404 and value.get("message") == "HTTP 404 Not Found")


def assemble(ref: SchemaRef, schema: SchemaAnswer, found: Mapping[SubjectVersion, SchemaAnswer]) -> Registered:
    """The schema with all that it refers to, each after those that it refers to itself.

    ``found`` has every version that is referred to, also indirectly. Raises Unusable for a cycle, for one name with two
    schemas, and for more than MAX_SCHEMA bytes.
    """
    ordered: dict[str, tuple[SubjectVersion, str]] = {}
    # A path of open schemas instead of recursion; each has an iterator over its references that are left.
    path: list[tuple[VersionReference | None, Any]] = [(None, iter(schema.references))]
    while path:
        mine, left = path[-1]
        next_ = next(left, None)
        if next_ is None:
            path.pop()
            if mine is not None:
                ordered[mine.name] = (mine.of, found[mine.of].text)
        elif next_.name in ordered:
            if ordered[next_.name][1] != found[next_.of].text:
                raise Unusable(f"{next_.name} means {ordered[next_.name][0]} and also {next_.of}, another schema")
        elif any(each is not None and each.of == next_.of for each, _ in path):
            raise Unusable(f"{next_.name} ({next_.of}) refers to itself")
        else:
            path.append((next_, iter(found[next_.of].references)))
    references = tuple(Reference(name, text) for name, (_, text) in ordered.items())
    size = sum(len(text.encode(errors="surrogatepass")) for text in (schema.text, *(each.text for each in references)))
    if size > MAX_SCHEMA:
        raise Unusable(f"{size:,} bytes with its references, over the limit of {MAX_SCHEMA:,}")
    return Registered(ref, schema.type, schema.text, references)


def _reference(told: Any) -> VersionReference:
    told = told if isinstance(told, dict) else {}
    name, subject, version = told.get("name"), told.get("subject"), told.get("version")
    if type(name) is not str or type(subject) is not str or type(version) is not int:
        raise RubbishAnswer("a reference in the answer lacks its name, subject or version")
    return VersionReference(name, SubjectVersion(subject, version))


def _begin(raw: bytes) -> str:
    """How an answer begins, for a message."""
    return repr(raw[:40].decode(errors="replace"))
