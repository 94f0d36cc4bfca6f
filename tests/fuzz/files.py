"""Targets for files of the user: any content is either used, or refused with a message that names the file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from failsoft.models.answers.fallback import static
from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.card import load_card
from failsoft.models.catalog.repository import Repository, UnknownModel
from failsoft.models.vetting import golden
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.event import Envelope
from failsoft.schemas.features.reading import columns
from failsoft.schemas.prediction import Predictions, Source
from failsoft.schemas.scored import Answers, encode
from failsoft.topics.layout import layout
from failsoft.workers import settings
from tests.fuzz.published import hold_to_scored
from tests.fuzz.target import Target

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "repository" / "repayment"

LONGEST_REFUSAL = 20_000
"""Characters of a refusal: a bound on what a person has to read, for a file of any size."""


def read_or_refused(read: Callable[[], T], named: str) -> T | None:
    """The result of ``read``; None if it raised a well-formed Refused whose file contains ``named``."""
    try:
        return read()
    except Refused as refused:
        message = str(refused)
        assert named in refused.file and message.startswith(refused.file)
        assert refused.problems and all(problem.strip() for problem in refused.problems)
        assert "Traceback" not in message and "set_int_max_str_digits" not in message
        assert len(message) < LONGEST_REFUSAL, f"{len(message)} characters"
        return None


def pipeline(data: bytes) -> bool:
    """A pipeline file gives settings with valid topics, or Refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.toml"
        path.write_bytes(data)
        found = read_or_refused(lambda: settings.load(path, {}), "pipeline.toml")
        if found is not None:
            assert isinstance(found.envelope, Envelope)
            topics = layout(found.names, found.input.topics, found.retry.rungs, 4, found.input.max_bytes)
            assert len({t.name for t in topics}) == len(topics)
            assert all(0 < len(t.name) <= 249 for t in topics)
            dump = found.model_dump()  # without the folder, which is not a setting
            assert settings.Settings.model_validate(dump).model_dump() == dump
        return found is not None


def environment(data: bytes) -> bool:
    """Environment variables, one on each line, over a good file give settings, or Refused."""
    given = dict(
        line.partition("=")[::2] for line in data.decode("utf-8", "surrogateescape").split("\n") if "\0" not in line
    )
    given.pop("FAILSOFT_PIPELINE", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.toml"
        path.write_bytes(PIPELINE)
        try:
            settings.load(path, given)
            return True
        except Refused as refused:
            assert refused.file in ("environment", str(path)) and all(p.strip() for p in refused.problems)
            assert "set_int_max_str_digits" not in str(refused) and len(str(refused)) < LONGEST_REFUSAL
            return False


def card(data: bytes) -> bool:
    """A card can be used to read and answer an event, or gives Refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "repayment" / "card.toml"
        path.parent.mkdir()
        path.write_bytes(data)
        found = read_or_refused(lambda: load_card(path), "card.toml")
        if found is None:
            return False
        made = columns([{}, {f.name: f.mode for f in found.features}], found.specs)
        assert made.size == 2
        if not any(f.impute is not None and f.impute.method.statistic for f in found.features):
            ready = impute(made, found, {})
            assert {0} == {0} & (ready.invalid.keys() | ready.imputed.keys()) or not found.features
        if found.fallback is not None:
            answer = Predictions.of([static(found)])
            (value,) = encode(
                Answers(
                    Source.STATIC, None, None, None, 0, True, ["e"], ["2018-10-30T18:00:00Z"], answer, ["t"], 0, [1],
                    {}, "2018-10-30T18:00:00Z",
                )
            )  # fmt: skip
            hold_to_scored(value, reason="timeout")
        return True


def version(data: bytes) -> bool:
    """A version.toml, whole or half copied, gives a version or Refused; the repository can be listed either way."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "repayment"
        (model / "3").mkdir(parents=True)
        (model / "card.toml").write_bytes(_WHOLE)
        (model / "3" / "model.onnx").write_bytes(b"weights")
        (model / "3" / "version.toml").write_bytes(data)
        repository = Repository(Path(folder))
        listed = read_or_refused(lambda: repository.versions("repayment"), "version.toml")
        assert listed in (None, [], [3])
        if not listed:
            return False
        try:
            found = read_or_refused(lambda: repository.artifact("repayment", 3), "repayment")
        except UnknownModel:
            raise AssertionError("a listed version does not exist") from None
        if found is not None:
            loaded = repository.card("repayment")
            ready = impute(columns([{}], loaded.specs), loaded, found.statistics)
            assert ready.invalid.keys() | ready.imputed.keys() == {0}
        return found is not None


def vectors(data: bytes) -> bool:
    """A golden.ndjson gives vectors that a model can run, or Refused with the line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / golden.FILE
        path.write_bytes(data)
        found = read_or_refused(lambda: golden.read(path), golden.FILE)
        if found is None:
            return False
        loaded = load_card(MODEL / "card.toml")
        statistics = Repository(MODEL.parent).artifact("repayment", 1).statistics
        fed, invalid = golden.rows(found, loaded, statistics, {})
        assert fed.size == len(found) and set(invalid) <= set(range(len(found)))
        assert golden.mismatches(found, [vector.expected for vector in found]) == []
        return True


CARD = (MODEL / "card.toml").read_bytes()
PIPELINE = b"""name = "loans"
model = "repayment"
guarantee = "exactly_once"
[kafka]
bootstrap_servers = "127.0.0.1:9092"
security_protocol = "SASL_PLAINTEXT"
sasl_mechanism = "SCRAM-SHA-512"
sasl_username = "ann"
[input]
topics = ["loans.events", "other"]
id = "event_id"
time = "occurred_at"
features = "features"
max_bytes = 1_000_000
partitions = 4
[retry]
delays = ["5s", "30s", "5m"]
jitter = 0.1
[models]
repository = "models/repository"
vetting_memory_mb = 512
vetting_time = "60s"
"""
_WHOLE = b"""[output]
kind = "regression"
[[features]]
name = "car_value"
type = "int"
impute = "mode"
[[features]]
name = "driver_tenure"
type = "float"
impute = "median"
"""
_ENSEMBLE = b"""[model]
kind = "ensemble"
[output]
kind = "multiclass"
labels = ["a", 2]
min_confidence = 0.5
[ensemble]
combine = "weighted_mean"
quorum = 1
members = [{ model = "a", weight = 2 }, { model = "b" }]
[fallback]
chain = ["static"]
static = { score = 0.5, label = "a", probabilities = [0.5, 0.5] }
"""
_PROCESS = b"""model = { deadline = "1s", blame = "2s", isolation = "process", replicas = 2, memory = "512MB" }
features = [{ name = "n", type = "int", impute = "mean", mean = 3.5 },
  { name = "s", type = "string", unseen = "pass", categories = ["a"], impute = { value = "median" } },
  { name = "b", type = "bool", mode = true, impute = "last_known" }]
output = { kind = "anomaly", range = [-10, 10.0], threshold = 1 }
rollback = { after_failed_probes = 1, hold = "5m" }
"""
_VERSION = (MODEL / "1" / "version.toml").read_bytes().partition(b"\n")[2]  # sha256 left out: of another file
_VERSION = _VERSION.replace(b"median = 22066.000000", b"median = 22066.000000\nmode = 22066.0")

TARGETS = (
    Target(
        "pipeline",
        pipeline,
        (PIPELINE,),
        (b'"5s"', b'["5s"]', b'"loans.retry.5s"', b"1970-01-01T00:00:00Z", b"[input]"),
    ),
    Target(
        "environment",
        environment,
        (
            b'FAILSOFT_KAFKA__BOOTSTRAP_SERVERS=a:1,b:2\nFAILSOFT_RETRY__DELAYS=5s,1m\nFAILSOFT_INPUT__TOPICS=["a"]',
            b"FAILSOFT_NAME=x\nFAILSOFT_INPUT__MAX_BYTES=100\nFAILSOFT_RETRY__JITTER=0.2\nFAILSOFT_KAFKA__SASL_PASSWORD=p",
        ),
    ),
    Target(
        "card", card, (CARD, _ENSEMBLE, _PROCESS), (b'"median"', b'"static"', b'"int"', b'"1h"', b"impute", b"mode")
    ),
    Target("version", version, (_VERSION,), (b"mode", b"mean", b"median")),
    Target("vectors", vectors, ((MODEL / "1" / golden.FILE).read_bytes(),), (b'"tolerance": 1', b'"label"')),
)
