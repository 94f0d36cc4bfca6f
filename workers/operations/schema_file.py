"""Reads the schema of events from a file: Avro, Protobuf or JSON Schema, with the files that it refers to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from failsoft.schemas.formats.registered import MAX_SCHEMA, Reference, Registered, SchemaType
from failsoft.workers.schema_registry.packages import lacking

_SUFFIXES = {".avsc": SchemaType.AVRO, ".proto": SchemaType.PROTOBUF, ".json": SchemaType.JSON}
_IMPORT = re.compile(r'(?:^|;)\s*import\s+(?:public\s+|weak\s+)?"([^"\n]+)"\s*;', re.MULTILINE)
_BUILT_IN = ("google/protobuf/", "google/type/", "confluent/")
"""How the imports begin that come with failsoft."""


class UnusableFile(Exception):
    """A file is no schema that failsoft can use. The message names the file, and says why. Exit code 1."""


def _type(path: Path) -> SchemaType:
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise UnusableFile(f"{path}: the name says no language of schemas: it must end in {', '.join(_SUFFIXES)}")
    return kind


def read(path: Path) -> Registered:
    """The schema in a file, with what it refers to from files beside it. Its ``ref`` is 0.

    Raises UnusableFile, and OSError for a file that cannot be read.
    """
    kind = _type(path)
    text = _text(path)
    if kind is SchemaType.PROTOBUF:
        _check_packages(path, kind)
        return Registered(0, kind, text, tuple(_imports(path, text)))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UnusableFile(f"{path}: not JSON: {e}") from None
    if kind is SchemaType.JSON and isinstance(found, dict) and found.get("type") == "record" and "fields" in found:
        kind = SchemaType.AVRO
    _check_packages(path, kind)
    return Registered(0, kind, _whole(path, text, found) if kind is SchemaType.AVRO else text)


def _check_packages(path: Path, kind: SchemaType) -> None:
    why = lacking(kind.wire_format)
    if why is not None:
        raise UnusableFile(f"{path}: {why}")


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if len(raw) > MAX_SCHEMA:
        raise UnusableFile(f"{path}: {len(raw):,} bytes, over the limit of {MAX_SCHEMA:,} for a schema")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UnusableFile(f"{path}: not UTF-8: {e.reason} at byte {e.start}") from None


def _whole(path: Path, text: str, found: Any) -> str:
    """The text of an Avro schema, with the types that it names from files beside it, each called ``<full name>.avsc``.

    Raises UnusableFile for a schema that is not valid.
    """
    import fastavro.schema as avro
    from fastavro.repository.base import SchemaRepositoryError

    try:
        avro.parse_schema(found, expand=False)
    except avro.UnknownType as unknown:
        try:
            return json.dumps(_plain(avro.load_schema(path)))
        except (avro.UnknownType, SchemaRepositoryError, OSError):
            missing = path.with_name(f"{unknown.name}.avsc")
            raise UnusableFile(f"{path}: {unknown.name!r} is no type of it: define it there, or in {missing}") from None
        except (avro.SchemaParseException, ValueError, RecursionError) as e:
            raise UnusableFile(f"{path}: {e}") from None
    except (avro.SchemaParseException, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise UnusableFile(f"{path}: not a valid Avro schema: {type(e).__name__}: {e}") from None
    return text


def _plain(schema: Any) -> Any:
    """A schema without the marks that the library leaves in it."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if not key.startswith("__")}
    return [_plain(each) for each in schema] if isinstance(schema, list) else schema


def _imports(path: Path, text: str) -> list[Reference]:
    """The files that a Protobuf file imports, also indirectly, each after those that it imports itself.

    They are looked for in the file's folder and in each folder around it, as a path from there.
    """
    found: dict[str, Reference] = {}
    size = len(text)

    def add(text: str, inside: tuple[str, ...]) -> None:
        nonlocal size
        for name in _IMPORT.findall(text):
            if name.startswith(_BUILT_IN) or name in found:
                continue
            if name in inside:
                raise UnusableFile(f"{path}: {name} imports itself")
            place = next((f / name for f in path.resolve().parents if (f / name).is_file()), None)
            if place is None:
                raise UnusableFile(f"{path}: the import {name!r} is neither in its folder nor in one around it")
            inner = _text(place)
            size += len(inner)
            if size > MAX_SCHEMA:
                raise UnusableFile(f"{path}: over the limit of {MAX_SCHEMA:,} bytes with its imports")
            add(inner, (*inside, name))
            found[name] = Reference(name, inner)

    add(text, ())
    return list(found.values())
