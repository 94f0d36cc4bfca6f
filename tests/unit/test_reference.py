"""The reference pages contain each key, command, option, header, kind and topic, with its meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from docs import __main__ as pages
from docs import commands_page, headers_page, keys_page, topics_page
from docs.config_schemas import card, pipeline
from docs.headers_page import READ, control_headers
from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.config.key import LEFT_OUT
from failsoft.schemas.failure import Kind
from failsoft.schemas.interface import Document, scored_headers_schema
from failsoft.workers.pipeline_sections import Kafka
from failsoft.workers.schema_sections import SchemaRegistry
from failsoft.workers.settings import ENV, SECRET_KEYS_OF, SECRETS, Settings

ROOT = Path(pages.__file__).resolve().parent.parent
FILES = {"pipeline": (pipeline(), Settings), "card": (card(), ModelCard)}
REFERENCE = [path for path in pages.PAGES if path.startswith("docs/reference/")]


def _sentence(text: str | None) -> bool:
    return bool(text) and text is not None and text[-1] in ".)" and text[0] not in "(." and "``" not in text


@pytest.mark.parametrize("name", FILES)
def test_each_key_says_what_it_means(name: str) -> None:
    """Each key has a meaning, an example and a default; a default of no value is described in words."""
    document, _ = FILES[name]
    for part in keys_page.parts(document):
        assert _sentence(part.meaning), part.head
        for key in part.keys:
            where = f"{name}: {'.'.join(key.path)}"
            assert _sentence(key.schema.get("description")), where
            assert key.schema.get("examples"), where
            assert key.required or LEFT_OUT in key.schema or "default" in key.schema, where
            assert key.default


@pytest.mark.parametrize("name", FILES)
def test_each_key_of_the_program_is_on_the_page(name: str) -> None:
    """Each key that the loader accepts has one row on the page."""
    document, model = FILES[name]
    documented = {key.path for part in keys_page.parts(document) for key in part.keys}
    assert {path for path in _keys(model, ()) if path[-1] not in SECRET_KEYS_OF.get(path[0], ())} == documented
    page = pages.PAGES[f"docs/reference/{name}.md"]()
    assert len(re.findall(r"^\| `[a-z_]+` \|", page, re.MULTILINE)) == len(documented)


def _keys(model: type[BaseModel], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The paths of the values in ``model``; a feature's ``impute`` counts as one value, whatever its form."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        section = None if name == "impute" else _section(field.annotation)
        found += _keys(section, (*path, name)) if section else [(*path, name)]
    return found


def _section(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = map(_section, getattr(annotation, "__args__", ()))
    return next((each for each in inner if each is not None), None)


def test_passwords_are_told_apart_from_keys() -> None:
    """The page lists the variables of the passwords, and no row for them among the file's keys."""
    page = keys_page.pipeline_page()
    assert all(f"| `{name}` | {_meaning(name)} |" in page for name in SECRETS)
    assert not any(f"| `{key}` |" in page for keys in SECRET_KEYS_OF.values() for key in keys)


def _meaning(variable: str) -> str:
    section, _, key = variable.removeprefix(ENV).lower().partition("__")
    keys = {"kafka": Kafka, "schema_registry": SchemaRegistry}[section]
    return keys.model_fields[key].description or ""


def test_each_command_and_option_says_what_it_means() -> None:
    """Each command has a help text with an example, each argument and option a meaning, and each is on the page."""
    page = commands_page.commands_page()
    for words, command in commands_page.commands():
        assert f"## {words}\n" in page
        assert f"`{words.split()[0]} " in command.help, f"{words} shows no example"
        for parameter in commands_page.parameters(command):
            assert _sentence(parameter.help), f"{words}: {parameter.name} says nothing"
    assert str(Path.home()) not in page and str(ROOT) not in page


def test_each_variable_is_on_the_page() -> None:
    """Each variable with our prefix that the code reads, and that is not a key's, is on the page."""
    read = set()
    for folder in ("schemas", "topics", "models", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            read |= set(re.findall(rf'environ[^"\n]*"({ENV}[A-Z_]+)"', path.read_text("utf-8")))
    assert read and read <= set(commands_page.ENVIRONMENT)
    assert all(
        f"| `{name}` | {meaning} |" in commands_page.commands_page()
        for name, meaning in commands_page.ENVIRONMENT.items()
    )


def test_each_header_says_what_it_means() -> None:
    """Each header of events, answers, retries, dead letters and replays is on the page with its meaning."""
    page = headers_page.headers_page()
    written: dict[str, Document] = {name: schema for name, schema, _ in control_headers()}
    for name, schema in (scored_headers_schema()["properties"] | written).items():
        assert _sentence(schema.get("description")), name
        assert f"| `{name}` |" in page
    assert all(_sentence(meaning) and f"| `{name}` | {meaning} |" in page for name, meaning in READ.items())


def test_each_kind_says_what_it_means() -> None:
    """Each failure kind is on the page with its meaning."""
    page = pages.PAGES["docs/reference/failure-kinds.md"]()
    for kind in Kind:
        assert _sentence(kind.meaning)
        assert f"| `{kind}` | {kind.meaning} |" in page


def test_each_topic_says_what_it_is_for() -> None:
    """Each topic is on the page with the meaning that the AsyncAPI document gives it."""
    page = topics_page.topics_page()
    for topic in topics_page.topics():
        assert _sentence(topics_page.meaning(topic)), topic.name
        assert f"| `{topic.name}` |" in page


def test_the_index_has_the_reference() -> None:
    """Each reference page is linked from the index, and its own links lead to files."""
    index = (ROOT / "docs/README.md").read_text("utf-8")
    assert {p.name for p in (ROOT / "docs/reference").glob("*.md")} == {Path(path).name for path in REFERENCE}
    for path in REFERENCE:
        assert f"({path.removeprefix('docs/')})" in index
        links = re.findall(r"\]\(([^)#]+)\)", pages.PAGES[path]())
        assert not [link for link in links if not (ROOT / path).parent.joinpath(link).exists()]
