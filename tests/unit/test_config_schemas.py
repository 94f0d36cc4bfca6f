"""The JSON Schemas of pipeline.toml and card.toml: valid, as strict as the loaders, with examples that load."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from docs import config_schemas
from docs.config_schemas import published
from docs.keys_page import Key, parts
from failsoft.models.catalog.card import load_card
from failsoft.models.catalog.fields import OutputKind
from failsoft.schemas.config.refusal import Refused
from failsoft.workers import settings
from failsoft.workers.demo import environment
from failsoft.workers.operations import scaffold
from failsoft.workers.operations.card_features import Feature
from failsoft.workers.operations.card_output import Output
from tests.fuzz import files as fuzz
from tests.unit.models.catalog import test_card, test_ensemble_cards
from tests.unit.test_settings import CONTRACT, LEAST

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = {"pipeline": config_schemas.pipeline(), "card": config_schemas.card()}
SCHEMAS = {name: json.loads(published(document)) for name, document in DOCUMENTS.items()}
KEYS = [(name, key) for name, document in DOCUMENTS.items() for part in parts(document) for key in part.keys]
CARD = test_card.LEAST
MULTICLASS = CARD.replace('"binary"', '"multiclass"') + '[fallback]\nchain = ["static"]\n'
ENSEMBLE = test_ensemble_cards.CARD.partition("[[ensemble.members]]")[0]

# The other keys that a card needs beside a given one, by the key's path or its section's. None removes a section.
_REGISTRY = {"schema_registry": {"url": "http://127.0.0.1:8081"}}
PIPELINES_BESIDE: dict[str, dict[str, Any]] = {"input.format": _REGISTRY, "output.format": _REGISTRY}
CARDS_BESIDE: dict[str, dict[str, Any]] = {
    "model.kind": tomllib.loads(test_ensemble_cards.CARD) | {"features": None},
    "model.replicas": {"model": {"isolation": "process"}},
    "model.memory": {"model": {"isolation": "process"}},
    "output.labels": {"output": {"kind": "multiclass"}},
    "output.positive": {"output": {"labels": ["legit", "fraud"]}},
    "output.anomalous": {"output": {"kind": "anomaly"}},
    "output.outputs": {"output": {"kind": "regression"}},
    "features.dtype": {"features": [{"name": "x", "type": "tensor", "shape": [3]}]},
    "features.shape": {"features": [{"name": "x", "type": "tensor", "dtype": "float32"}]},
    **{
        f"features.{key}": {"features": [{"name": "x", "type": "tensor", "dtype": "float32", "shape": [-1]}]}
        for key in ("max_length", "truncate", "pad", "mask")
    },
    "features.categories": {"features": [{"name": "x", "type": "string"}]},
    "features.unseen": {"features": [{"name": "x", "type": "string", "categories": ["a"]}]},
    "features.mode": {"features": [{"name": "x", "type": "string"}]},
    "ensemble": tomllib.loads(test_ensemble_cards.CARD) | {"features": None},
    "fallback": {"fallback": {"chain": ["static"], "static": {"score": 0.5}}},
    "fallback.static.label": {"output": {"kind": "multiclass"}},
    "fallback.static.probabilities": {"output": {"kind": "multiclass"}},
    "breaker.open_for": {"breaker": {"max_open": "1h"}},
}


def _loads(kind: str, folder: Path, text: str) -> bool:
    """Whether the program's own loader accepts the file."""
    path = folder / "repayment" / f"{kind}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    try:
        settings.load(path, {}) if kind == "pipeline" else load_card(path)
    except Refused:
        return False
    return True


def _fits(kind: str, text: str) -> bool:
    found = tomllib.loads(text)
    return bool(jsonschema.Draft7Validator(SCHEMAS[kind]).is_valid(found))


def _with(kind: str, key: Key, value: Any) -> str:
    """The smallest file with ``value`` at ``key``."""
    made = tomllib.loads(LEAST if kind == "pipeline" else CARD)
    dotted = ".".join(key.path)
    for where in (key.path[0], dotted) if value != "model" else ():
        for section, beside in (CARDS_BESIDE if kind == "card" else PIPELINES_BESIDE).get(where, {}).items():
            made[section] = made.get(section, {}) | beside if isinstance(beside, dict) else beside
    made = {section: beside for section, beside in made.items() if beside is not None}
    here = made
    for part in key.path[:-1]:
        here = here.setdefault(part, {})
        here = here[0] if isinstance(here, list) else here
    here[key.path[-1]] = value
    return _toml(made)


def _toml(made: dict[str, Any]) -> str:
    """Writes TOML: its inline syntax is that of JSON but for the colons."""

    def value(each: Any) -> str:
        if isinstance(each, dict):
            return "{ " + ", ".join(f"{json.dumps(k)} = {value(v)}" for k, v in each.items()) + " }"
        if isinstance(each, list):
            return f"[{', '.join(map(value, each))}]"
        return json.dumps(each)

    return "\n".join(f"{json.dumps(k)} = {value(v)}" for k, v in made.items())


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_is_valid_by_the_draft_that_it_names(kind: str) -> None:
    """Each schema is valid Draft 7, forbids unknown keys, and contains no reference, null or password."""
    assert SCHEMAS[kind]["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(SCHEMAS[kind])
    text = published(DOCUMENTS[kind])
    assert not any(word in text for word in ("$ref", "$defs", "prefixItems", "null}", "_password", "x-left-out"))
    for node in _objects(SCHEMAS[kind]):
        assert node["additionalProperties"] is False


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "properties" in node and "type" in node:
            yield node
        for inner in node.values():
            yield from _objects(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _objects(inner)


@pytest.mark.parametrize(("kind", "key"), KEYS, ids=lambda each: ".".join(each.path) if isinstance(each, Key) else each)
def test_examples_and_defaults_are_what_the_program_takes(kind: str, key: Key, tmp_path: Path) -> None:
    """The loader and the schema accept each example, and each default as the page shows it."""
    values = key.schema["examples"] + ([key.schema["default"]] if "default" in key.schema else [])
    for value in values:
        if key.path == ("features", "impute") and isinstance(value, dict):
            text = _with(kind, key, value).replace('"float"', '"string"')
        else:
            text = _with(kind, key, value)
        assert _loads(kind, tmp_path, text), f"{'.'.join(key.path)} = {value!r}"
        assert _fits(kind, text), f"{'.'.join(key.path)} = {value!r}"


def test_no_text_offers_what_workers_refuse() -> None:
    """Workers refuse ``impute = "last_known"``: the key's meaning says so, and no example or template offers it."""
    (impute,) = [key for _, key in KEYS if key.path == ("features", "impute")]
    assert '`"last_known"` is reserved' in impute.schema["description"]
    assert "last_known" not in impute.schema["examples"]
    hints = [line for line in _made("models/repository/m/card.toml").splitlines() if line.startswith("# impute: ")]
    assert len(hints) == 1 and "last_known" not in hints[0]


def _pipelines() -> Iterator[tuple[str, str]]:
    for path in (ROOT / "ops/pipeline.toml",):
        yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    yield "init", _made("pipeline.toml")
    yield "the contract's", CONTRACT
    yield "the least", LEAST
    yield "fuzz", fuzz.PIPELINE.decode()
    yield "demo", environment.PIPELINE.format(bootstrap="a:1", partitions=4, delays='"2s", "5s"', repository="models")


def _cards() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.glob("models/repository/*/card.toml")):
        yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    yield "init", _made("models/repository/m/card.toml")
    columns = [Feature("a", "float"), Feature("b", "int"), Feature("c", "bool"), Feature("d", "string", input="in")]
    tensors = [Feature("e", "tensor", "float16", (2, 3)), Feature("f", "tensor", "int64", (-1,), 512, "mask")]
    for kind in OutputKind:
        shape = scaffold.Shape([*columns, *tensors], Output(kind), trees=True)
        yield f"init, {kind}", _made("models/repository/m/card.toml", shape)
    yield "the contract's", test_card.CARD
    yield "the least", test_card.LEAST
    yield "an ensemble's", test_ensemble_cards.CARD
    yield "fuzz", fuzz.CARD.decode()
    yield "fuzz, ensemble", fuzz._ENSEMBLE.decode()
    yield "fuzz, process", fuzz._PROCESS.decode()
    for page in ("ensembles", "versions"):
        text = (ROOT / f"docs/{page}.md").read_text("utf-8").split("```toml\n")[1].split("```")[0]
        yield f"docs/{page}.md", text if "[output]" in text else text + CARD


def _made(path: str, shape: scaffold.Shape = scaffold.EXAMPLE) -> str:
    folder = files("failsoft.workers").joinpath("templates")
    templates = {t.name: t.read_text("utf-8") for t in folder.iterdir() if t.is_file()}
    return scaffold.files("p", "m", templates, shape)[path]


GOOD = [("pipeline", *each) for each in _pipelines()] + [("card", *each) for each in _cards()]


@pytest.mark.parametrize(("kind", "where", "text"), GOOD, ids=[f"{kind}: {where}" for kind, where, _ in GOOD])
def test_every_file_of_ours_fits(kind: str, where: str, text: str, tmp_path: Path) -> None:
    """The schema and the loader accept the repository's files, those of `failsoft init`, and those of the tests."""
    errors = [e.message for e in jsonschema.Draft7Validator(SCHEMAS[kind]).iter_errors(tomllib.loads(text))]
    assert not errors
    assert _loads(kind, tmp_path, text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("pipeline", 'model = "m"\n[input]\ntopics = ["in"]'),
        ("pipeline", LEAST.replace('"p"', '"-p"')),
        ("pipeline", LEAST.replace('"p"', "5")),
        ("pipeline", LEAST.replace('"m"', '" "')),
        ("pipeline", LEAST.replace('["in"]', "[]")),
        ("pipeline", LEAST.replace('["in"]', '["a b"]')),
        ("pipeline", LEAST.replace('["in"]', '["in", "in"]')),
        ("pipeline", LEAST.replace('["in"]', '[".."]')),
        ("pipeline", LEAST + "topic = []"),
        ("pipeline", LEAST + "[retri]"),
        ("pipeline", LEAST + "max_bytes = 0"),
        ("pipeline", LEAST + 'max_bytes = "5"'),
        ("pipeline", LEAST + 'format = "xml"'),
        ("pipeline", LEAST + '[kafka]\nbootstrap_servers = "a:1,"'),
        ("pipeline", LEAST + '[kafka]\nbootstrap_servers = ",h:1"'),
        ("pipeline", LEAST + '[kafka]\nbootstrap_servers = "h:1,,h:2"'),
        ("pipeline", LEAST + '[kafka]\nbootstrap_servers = "host:0"'),
        ("pipeline", LEAST + '[kafka]\nbootstrap_servers = "host:000"'),
        ("pipeline", LEAST + '[kafka]\nbootstrap_servers = "a:1, host:65536"'),
        ("pipeline", LEAST + '[kafka]\nbootstrap_servers = "host:99999"'),
        ("pipeline", LEAST + '[kafka]\nbootstrap_servers = "host:123456"'),
        ("pipeline", LEAST + '[kafka]\nsecurity_protocol = "SASLSSL"'),
        ("pipeline", LEAST + '[kafka]\nsasl_password = "x"'),
        ("pipeline", LEAST + "[kafka]\nreplication = -1"),
        ("pipeline", LEAST + '[retry]\ndelays = ["5s", "1x"]'),
        ("pipeline", LEAST + '[retry]\ndelays = ["0.0s"]'),
        ("pipeline", LEAST + "[retry]\ndelays = [5]"),
        ("pipeline", LEAST + "[retry]\njitter = 1.0"),
        ("pipeline", LEAST + '[models]\nvetting_time = "60"'),
        ("card", CARD + "[model]\ndeadline = 200"),
        ("card", CARD + '[model]\ndeadline = "0ms"'),
        ("card", CARD + '[model]\nisolation = "tread"'),
        ("card", CARD + '[model]\nisolation = "process"\nreplicas = 17'),
        ("card", CARD + '[model]\nisolation = "process"\nmemory = "64 MB"'),
        ("card", CARD + '[breaker]\nopen = "5s"'),
        ("card", CARD + "[breaker]\nfailure_rate = 0"),
        ("card", CARD + "[breaker]\nprobes = true"),
        ("card", CARD + '[fallback]\nchain = ["last_known"]\nstatic = { score = 0.5 }'),
        ("card", CARD + '[fallback]\nchain = ["static", "static"]\nstatic = { score = 0.5 }'),
        ("card", CARD + '[fallback]\nchain = ["modell:x", "static"]\nstatic = { score = 0.5 }'),
        ("card", CARD + '[fallback]\nchain = ["rule:1a:b", "static"]\nstatic = { score = 0.5 }'),
        ("card", CARD + '[fallback]\nchain = ["rule:a-b:c", "static"]\nstatic = { score = 0.5 }'),
        ("card", CARD + '[fallback]\nchain = ["rule:.a:b", "static"]\nstatic = { score = 0.5 }'),
        ("card", CARD + '[fallback]\nchain = ["rule:a:b.c", "static"]\nstatic = { score = 0.5 }'),
        ("card", CARD + '[fallback]\nchain = ["static"]\nstatic = { label = 1 }'),
        ("card", MULTICLASS + "static = { score = 0.5, probabilities = [1.0] }"),
        ("card", MULTICLASS + "static = { score = 0.5, probabilities = [1.5, -0.5] }"),
        ("card", CARD.replace('"binary"', '"binari"')),
        ("card", CARD.replace('kind = "binary"', 'kind = "binary"\nrange = [0.0]')),
        ("card", CARD.replace('kind = "binary"', 'kind = "binary"\nmin_confidence = 1.5')),
        ("card", CARD.replace('kind = "binary"', "")),
        ("card", CARD.replace('"float"', '"double"')),
        ("card", CARD + "impute = { median = 3 }"),
        ("card", CARD + 'impute = { method = "median" }'),
        ("card", CARD + 'impute = { method = "median", value = 3.0 }'),
        ("card", CARD + 'impute = { method = "value", value = 3.0 }'),
        ("card", CARD + "impute = [3]"),
        ("card", 'features = []\n[output]\nkind = "binary"'),
        ("card", CARD.replace('"binary"', '"multiclass"\nclasses = []')),
        ("card", CARD.replace('"binary"', '"multiclass"\nclasses = ["a"]')),
        ("card", CARD.replace('"binary"', '"multiclass"\nclasses = ["a", "a"]')),
        ("card", "features = []\n" + test_ensemble_cards.CARD),
        ("card", ENSEMBLE + 'members = [{ model = "a" }]'),
        ("card", ENSEMBLE + "members = []"),
        ("card", CARD + "required = 1"),
        ("card", test_ensemble_cards.CARD.replace("weight = 2.0", "weight = 0")),
        ("card", test_ensemble_cards.CARD.replace("quorum = 2", "quorum = 0")),
        ("card", test_ensemble_cards.CARD.replace("weighted_mean", "median")),
    ],
)
def test_a_mistake_is_refused_by_both(kind: str, text: str, tmp_path: Path) -> None:
    """The schema refuses what the loader refuses: a wrong type, an unknown key, a bad duration, a missing key."""
    assert not _fits(kind, text)
    assert not _loads(kind, tmp_path, text)
