"""JSON Schemas of pipeline.toml and card.toml, for completion in editors and for the reference pages."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.config import duration, size
from failsoft.schemas.config.key import LEFT_OUT
from failsoft.schemas.interface import Document
from failsoft.workers.settings import Settings

DRAFT = "http://json-schema.org/draft-07/schema#"
_WRITTEN = {duration.PATTERN: duration.text, size.PATTERN: size.text}

_FIRST = ("$schema", "title", "description", "type")
_LAST = ("properties", "required", "default", "examples")


def pipeline() -> Document:
    """The schema of pipeline.toml."""
    return _document(Settings, "pipeline.toml", "A failsoft pipeline: its topics, its primary model, its retries.")


def card() -> Document:
    """The schema of card.toml."""
    about = "A model's card: its inputs and outputs, and the answers when the model fails."
    return _document(ModelCard, "card.toml", about)


def published(document: Document) -> str:
    """The text of the schema file. A description also says what applies when the key is left out, since editors show
    only the description.
    """
    return json.dumps(_with_left_out(document), indent=2, ensure_ascii=False) + "\n"


def _document(model: type[BaseModel], title: str, description: str) -> Document:
    found = model.model_json_schema()
    plain = _plain(found, found.get("$defs", {}))
    return _ordered({"$schema": DRAFT, **plain, "title": title, "description": description})


def _plain(node: Any, definitions: Document) -> Any:
    """Pydantic's schema (2020-12) as a draft 7 schema of a TOML file.

    References are replaced by their definitions. Nulls and passwords are left out. Defaults are written as in a file.
    """
    if isinstance(node, list):
        return [_plain(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _plain(definitions[node["$ref"].removeprefix("#/$defs/")] | _without(node, "$ref"), definitions)
    if "anyOf" in node:
        some = [each for each in node["anyOf"] if each != {"type": "null"}]
        if len(some) == 1:
            return _plain(some[0] | _without(node, "anyOf"), definitions)
        node = node | {"anyOf": some}
    own = {k: v for k, v in node.items() if k not in ("$defs", "properties", "title")}
    found = {k: v if k in ("default", "examples") else _plain(v, definitions) for k, v in own.items()}
    if "properties" in node:
        found["properties"] = {
            name: _plain(each, definitions) for name, each in node["properties"].items() if not _secret(each)
        }
    if "prefixItems" in found:
        found |= {"items": found.pop("prefixItems"), "additionalItems": False}
    if "description" in found:
        found["description"] = " ".join(found["description"].split())
    return _ordered(_defaulted(found))


def _ordered(node: Document) -> Document:
    """Keys in an order for readers, which does not depend on pydantic's version."""
    middle = sorted(node.keys() - {*_FIRST, *_LAST})
    return {k: node[k] for k in (*_FIRST, *middle, *_LAST) if k in node}


def _defaulted(node: Document) -> Document:
    if "default" not in node:
        return node
    default, form = node["default"], node.get("pattern")
    if default is None or LEFT_OUT in node or "properties" in node:
        return _without(node, "default")
    if form in _WRITTEN and not isinstance(default, str):
        return node | {"default": _WRITTEN[form](default)}
    return node


def _secret(node: Document) -> bool:
    return any(each.get("format") == "password" for each in [node, *node.get("anyOf", [])])


def _with_left_out(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_left_out(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {k: v if k in ("default", "examples") else _with_left_out(v) for k, v in node.items() if k != LEFT_OUT}
    if isinstance(node.get(LEFT_OUT), str):
        found["description"] = f"{node['description']} Left out: {node[LEFT_OUT]}."
    return found


def _without(node: Document, key: str) -> Document:
    return {k: v for k, v in node.items() if k != key}
