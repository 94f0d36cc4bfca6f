"""What ``topics apply`` finds about the schema of answers, before it changes anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from failsoft.schemas import scored_schema
from failsoft.workers import settings
from failsoft.workers.operations import answer_subject
from failsoft.workers.operations.answer_subject import AnswerSubject
from failsoft.workers.schema_registry import answer_schema, packages
from failsoft.workers.schema_registry.client import RegistryRefusal, RegistryUnavailable
from failsoft.workers.settings import Settings
from tests.registry_server import Failing, RegistryServer

SUBJECT = "loans.scored-value"
PIPELINE = """
name = "loans"
model = "m"
[input]
topics = ["in"]
[schema_registry]
url = "{url}"
[output]
format = "avro"
"""


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    """A registry that runs."""
    with RegistryServer() as running:
        yield running


@pytest.fixture
def pipeline(registry: RegistryServer, tmp_path: Path) -> Settings:
    """A pipeline with answers in Avro."""
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(url=registry.url))
    return settings.load(tmp_path, {})


async def _look(pipeline: Settings, kept: int | None, monkeypatch: pytest.MonkeyPatch) -> AnswerSubject:
    async def found(_: Settings) -> int | None:
        return kept

    monkeypatch.setattr(answer_schema, "kept", found)
    return await answer_subject.look(pipeline)


async def test_a_new_subject_is_to_be_registered(pipeline: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No id is known before."""
    assert await _look(pipeline, None, monkeypatch) == AnswerSubject(SUBJECT, None, None)


async def test_the_subjects_newest_schema_is_taken_if_only_its_words_differ(
    pipeline: Settings, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A better sentence in a new version of failsoft makes no new version of the subject."""
    known = registry.register(SUBJECT, "AVRO", json.dumps(scored_schema.SCHEMA | {"doc": "as it was"}))
    assert await _look(pipeline, 9, monkeypatch) == AnswerSubject(SUBJECT, 9, known)


async def test_a_refusal_has_the_registrys_words(
    pipeline: Settings, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each, with the subject."""
    registry.register(SUBJECT, "AVRO", '"string"')
    registry.incompatible = ["READER_FIELD_MISSING: a", "TYPE_MISMATCH: b"]
    with pytest.raises(RegistryRefusal) as refused:
        await _look(pipeline, None, monkeypatch)
    first, second = str(refused.value).splitlines()
    assert first.startswith(f"{SUBJECT}: ") and first.endswith("READER_FIELD_MISSING: a") and "TYPE" in second


async def test_a_registry_that_is_down_matters_only_without_an_id(
    pipeline: Settings, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one, its topics can be mended while the registry is down."""
    registry.failing = Failing.ERROR_503
    found = await _look(pipeline, 9, monkeypatch)
    assert found.id == 9 and found.silent is not None and registry.url in found.silent
    with pytest.raises(RegistryUnavailable, match=SUBJECT):
        await _look(pipeline, None, monkeypatch)


async def test_without_the_extra_the_pipeline_is_refused(pipeline: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with what to install."""
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    with pytest.raises(settings.Refused, match=r"pip install 'failsoft\[avro\]'"):
        await answer_schema.required(pipeline)
