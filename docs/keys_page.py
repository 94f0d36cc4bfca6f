"""docs/reference/pipeline.md and card.md: every key of the two files, from the JSON Schemas of config_schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from docs import config_schemas
from docs.markdown import code, page, table
from failsoft.models.catalog import chain
from failsoft.schemas import model_version
from failsoft.schemas.config import duration, size
from failsoft.schemas.config.key import LEFT_OUT
from failsoft.schemas.interface import Document
from failsoft.topics import names
from failsoft.workers import pipeline_sections
from failsoft.workers.pipeline_sections import Kafka
from failsoft.workers.schema_sections import SchemaRegistry
from failsoft.workers.settings import ENV

_FORMS = {
    duration.PATTERN: "duration",
    size.PATTERN: "size",
    chain.PATTERN: "link",
    names.NAME_PATTERN: "name",
    model_version.NAME_PATTERN: "model name",
    names.TOPIC_PATTERN: "topic",
    pipeline_sections.SERVERS_PATTERN: "brokers",
    r"\S": "text, not empty",
}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a file. ``path`` is the names of its sections and its own name."""

    path: tuple[str, ...]
    schema: Document
    required: bool

    @property
    def default(self) -> str:
        """What applies when the key is left out."""
        if self.required:
            return "**required**"
        if LEFT_OUT in self.schema:
            return str(self.schema[LEFT_OUT])
        return code(toml(self.schema["default"]))

    def row(self) -> tuple[str, ...]:
        """The cells of the key's table row."""
        examples = ", ".join(code(toml(each)) for each in self.schema["examples"])
        return code(self.path[-1]), type_of(self.schema), self.default, self.schema["description"], examples


@dataclass(frozen=True, slots=True)
class Part:
    """A section: its heading as TOML writes it, its meaning, and its own keys."""

    head: str
    meaning: str
    keys: tuple[Key, ...]


def parts(document: Document) -> Iterator[Part]:
    """The sections of a file, in the file's order. Keys outside of any section come first."""
    yield from _parts(document, (), "")


def toml(value: Any) -> str:
    """``value`` as TOML writes it on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def type_of(schema: Document) -> str:
    """The values that a key may have, in words."""
    if "const" in schema:
        return code(toml(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(toml(each)) for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(type_of, schema["anyOf"]))
    kind = schema["type"]
    if isinstance(kind, list):
        return "a value"
    if kind == "object":
        return code(toml(dict.fromkeys(schema["properties"], "…")).replace('"', ""))
    if kind == "array":
        items = schema["items"]
        return f"{len(items)} × {type_of(items[0])}" if isinstance(items, list) else f"list: {type_of(items)}"
    return _FORMS.get(schema.get("pattern", ""), _TYPES[kind] + _bounds(schema))


def pipeline_page() -> str:
    """docs/reference/pipeline.md."""
    secrets = {
        f"{ENV}{section}__{name}".upper(): field.description or ""
        for section, keys in (("kafka", Kafka), ("schema_registry", SchemaRegistry))
        for name, field in keys.model_fields.items()
        if SecretStr.__name__ in str(field.annotation)
    }
    return page(
        "# pipeline.toml",
        "",
        "One stream job. failsoft reads the file of `--pipeline`, else of `FAILSOFT_PIPELINE`, else the one in the",
        "working directory. A file with a mistake is refused. The message names the key, its allowed values and a near",
        "spelling. Generated from `workers/settings.py`, `pipeline_sections.py` and `schema_sections.py`.",
        "",
        _UNITS,
        "",
        "An environment variable can set each key: `FAILSOFT_KAFKA__BOOTSTRAP_SERVERS` is `bootstrap_servers` of",
        "`[kafka]`, and `FAILSOFT_NAME` is `name`. A command's option takes precedence over the environment, and the",
        "environment over the file.",
        "",
        *_sections(config_schemas.pipeline()),
        "## Passwords",
        "",
        "A file that contains a password is refused. Set passwords in the environment:",
        "",
        *table(("variable", "meaning"), ((code(name), meaning) for name, meaning in secrets.items())),
        "",
        *_editors("pipeline"),
    )


def card_page() -> str:
    """docs/reference/card.md."""
    return page(
        "# card.toml",
        "",
        "A model's card describes its inputs and outputs, and the answers when the model fails. Its path is",
        "`<repository>/<model>/card.toml`. A card with a mistake is refused, and the message names the key. The card",
        "of an [ensemble](../ensembles.md) has `[ensemble]` instead of features. Generated from",
        "`models/catalog/sections.py` and `models/catalog/feature_section.py`.",
        "",
        _UNITS,
        "",
        *_sections(config_schemas.card()),
        *_editors("card"),
    )


_UNITS = (
    'A duration is a number and a unit: `"200ms"`, `"5s"`, `"1m"`, `"1h"`, `"7d"`. A size is too: `"512MB"`, `"2GiB"`.'
)


def _sections(document: Document) -> Iterator[str]:
    for part in parts(document):
        yield f"## {part.head}"
        yield ""
        yield part.meaning
        yield ""
        yield from table(("key", "type", "default", "meaning", "example"), (key.row() for key in part.keys))
        yield ""


def _parts(node: Document, path: tuple[str, ...], head: str) -> Iterator[Part]:
    """A part for the section ``node``, whose heading is ``head``, then one for each section inside it."""
    inner: list[tuple[tuple[str, ...], Document, str]] = []
    keys = []
    for name, schema in node["properties"].items():
        here = (*path, name)
        item = schema.get("items", {})
        if "properties" in schema:
            inner.append((here, schema, f"`[{'.'.join(here)}]`"))
        elif "properties" in item:
            inner.append((here, item, f"`[[{'.'.join(here)}]]`"))
        else:
            keys.append(Key(here, schema, name in node.get("required", ())))
    if keys:
        yield Part(head or "Before the first section", node["description"], tuple(keys))
    for each in inner:
        yield from _parts(each[1], each[0], each[2])


def _bounds(schema: Document) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "over", "maximum": "to", "exclusiveMaximum": "under"}
    bounds = [f"{word} {schema[name]:,.0f}" for name, word in words.items() if abs(schema.get(name, 2**63)) < 2**63]
    return f" {' '.join(bounds)}" if bounds else ""


def _editors(name: str) -> list[str]:
    return [
        "## Completion in an editor",
        "",
        f"[{name}.schema.json](../../schemas/published/{name}.schema.json) is a JSON Schema of this file. Taplo and",
        "the VS Code extension Even Better TOML use it to complete and check the file. For this, the file's first line",
        f"must be `#:schema /path/to/{name}.schema.json`. The installed package contains the schema too:",
        "",
        "```console",
        '$ python -c \'from importlib.resources import files; print(files("failsoft.schemas") / "published")\'',
        "```",
    ]
