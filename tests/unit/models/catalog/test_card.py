"""Model cards: what a card.toml may say, and how a mistake in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.card import ModelCard, load_card
from failsoft.models.catalog.chain import Link, LinkKind
from failsoft.models.catalog.fields import Method
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.failure import Kind
from failsoft.schemas.features import FeatureType, Spec, columns

CARD = """\
[model]
deadline = "200ms"
isolation = "thread"
[output]
kind = "binary"
min_confidence = 0.6
range = [0.0, 1.0]
[[features]]
name = "car_value"
type = "float"
required = false
impute = "median"
[[features]]
name = "salary_range"
type = "string"
categories = ["0 - 20K €", "20K - 40K €"]
[fallback]
chain = ["model:lite", "last_known", "rule:failsoft.workers.demo.rules:by_ratio", "static"]
last_known_max_age = "1h"
static = { score = 0.5, label = 0 }
[breaker]
failure_rate = 0.5
window = "30s"
minimum_calls = 20
slow_call = "100ms"
slow_rate = 0.8
open_for = "15s"
max_open = "5m"
probes = 3
[rollback]
after_failed_probes = 3
hold = "30m"
"""
LEAST = '[output]\nkind = "binary"\n[[features]]\nname = "x"\ntype = "float"\n'


def load(folder: Path, text: str) -> ModelCard:
    path = folder / "repayment" / "card.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load_card(path)


def test_what_is_not_imputed_may_be_called_not_required(tmp_path: Path) -> None:
    """As the contract has it, ``impute`` may be none, whatever ``required`` says: the event is invalid then."""
    card = load(tmp_path, CARD.replace('impute = "median"', ""))
    assert (card.features[0].required, card.features[0].impute) == (False, None)
    made = impute(columns([{"salary_range": "0 - 20K €"}], card.specs), card, {})
    assert {row: failure.kind for row, failure in made.invalid.items()} == {0: Kind.INVALID}


def test_the_contracts_card(tmp_path: Path) -> None:
    """Every key of the contract's card is read, durations as seconds and links as links."""
    card = load(tmp_path, CARD)
    assert card.name == "repayment"
    assert (card.model.deadline, card.output.min_confidence, card.output.range) == (0.2, 0.6, (0.0, 1.0))
    assert card.specs == (
        Spec("car_value", FeatureType.FLOAT),
        Spec("salary_range", FeatureType.STRING, frozenset({"0 - 20K €", "20K - 40K €"})),
    )
    assert [f.required for f in card.features] == [False, True]
    assert card.fallback is not None
    assert card.fallback.chain == (
        Link(LinkKind.MODEL, "lite"),
        Link(LinkKind.LAST_KNOWN),
        Link(LinkKind.RULE, "failsoft.workers.demo.rules:by_ratio"),
        Link(LinkKind.STATIC),
    )
    assert (card.fallback.last_known_max_age, card.fallback.static.label) == (3600.0, 0)
    assert (card.breaker.window, card.breaker.max_open, card.rollback.hold) == (30.0, 300.0, 1800.0)


def test_a_process_of_its_own(tmp_path: Path) -> None:
    """How many, and how large each may grow, in bytes; by default one, of any size."""
    own = load(tmp_path, CARD.replace('"thread"', '"process"\nreplicas = 3\nmemory = "1.5GiB"')).model
    assert (own.isolation, own.replicas, own.memory) == ("process", 3, 1_610_612_736)
    plain = load(tmp_path, CARD.replace('"thread"', '"process"')).model
    assert (plain.replicas, plain.memory) == (1, None)


def test_defaults_are_the_contracts(tmp_path: Path) -> None:
    """A card of the least keys behaves as the contract's card does, with no fallback of its own."""
    least, full = load(tmp_path, LEAST), load(tmp_path, CARD)
    assert least.fallback is None
    assert (least.model, least.breaker, least.rollback) == (full.model, full.breaker, full.rollback)
    assert (least.output.range, least.output.threshold, least.output.min_confidence) == ((0.0, 1.0), 0.5, None)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"200ms"', "200", "model.deadline: 200 is not a duration"),
        ('"thread"', '"thread"\nreplicas = 2', 'model: replicas: only with isolation = "process"'),
        ('"thread"', '"thread"\nmemory = "1GB"', 'model: memory: only with isolation = "process"'),
        ('"thread"', '"process"\nreplicas = 17', "model.replicas"),
        ('"thread"', '"process"\nreplicas = 0', "model.replicas"),
        ('"thread"', '"process"\nreplicas = "2"', "model.replicas"),
        ('"thread"', '"process"\nmemory = 512', "model.memory: 512 is not a size: write a positive number and a unit"),
        ('"thread"', '"process"\nmemory = "64MB"', "memory: 64MB does not hold an interpreter and ONNX Runtime"),
        ('"thread"', '"tread"', "model.isolation: 'tread' is none of 'thread', 'process' (did you mean 'thread'?)"),
        ('kind = "binary"', 'kind = "binari"', "output.kind: 'binari' is none of 'binary'"),
        ('kind = "binary"', 'kind = "regression"', "min_confidence: a regression output has no confidence"),
        ("range = [0.0, 1.0]", "range = [1, 0]", "the lower bound comes first"),
        ("range = [0.0, 1.0]", "range = [-5, 5]", "a probability, within [0, 1]"),
        ("range = [0.0, 1.0]", 'classes = ["a", "b"]', "classes: only a multiclass output"),
        ("min_confidence = 0.6", "min_confidence = 6", "output.min_confidence"),
        ('"median"', '"mdian"', "not a float (did you mean 'median'?)"),
        ('"median"', "true", "impute is True, which is not a float"),
        ('"median"', "1e999", "impute is inf, which is not a float"),
        ("required = false", "required = true", "both required and imputed"),
        ('impute = "median"', 'impute = { vale = "mean" }', "features[0].impute"),
        ("categories", 'impute = "mean"\ncategories', "a string has no mean"),
        ("categories", 'impute = "90K"\ncategories', "not one of its categories"),
        ('"salary_range"', '"car_value"', "features: 'car_value' is listed twice"),
        ('type = "string"', 'type = "strng"', "did you mean 'string'?"),
        ('type = "string"', 'type = "int"', "only a string has categories"),
        (', "static"]', "]", 'must end in "static"'),
        ('"static"]', '"statik"]', "fallback.chain[3]: 'statik' is not a link"),
        ('"last_known",', '"model:lite",', "is listed twice"),
        ('"model:lite"', '"model:repayment"', "cannot be its own fallback"),
        ("label = 0", "label = true", "fallback.static.label"),
        ("failure_rate", "failure_rat", "breaker.failure_rat: no such key (did you mean 'failure_rate'?)"),
        ('max_open = "5m"', 'max_open = "1s"', "cannot be shorter than open_for"),
        ("minimum_calls = 20", "minimum_calls = 0", "breaker.minimum_calls"),
        (
            'deadline = "200ms"',
            'deadline = "2s"\nblame = "1s"',
            "model.blame: 1 s: it must be at least the dead",
        ),
        (
            'deadline = "200ms"',
            'blame = "21s"',
            "model.blame: 21 s: it must be at least the deadline of 0.2",
        ),
        ('deadline = "200ms"', "blame = 2", "model.blame: 2 is not a duration"),
        ("[output]", "[ouput]", "ouput: no such key (did you mean 'output'?)"),
        ("[breaker]", "[breaker", "is not TOML: Expected ']'"),
        ("[breaker]", "[breaker", "line "),
    ],
)
def test_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    """A mistake is refused with the file, the key, what it may be, and a near spelling where there is one."""
    assert old in CARD
    with pytest.raises(Refused) as refused:
        load(tmp_path, CARD.replace(old, new))
    assert told in str(refused.value)
    assert refused.value.file.endswith("card.toml")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("", 2), ('deadline = "50ms"', 0.5), ('deadline = "3s"', 20), ('deadline = "1m"', 60), ('blame = "700ms"', 0.7)],
)
def test_the_budget_for_blame_is_ten_deadlines_within_bounds(tmp_path: Path, said: str, seconds: float) -> None:
    """Unless the card says otherwise: no more than a lane may take, and never less than the first run."""
    assert load(tmp_path, f"[model]\n{said}\n{LEAST}").model.budget == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("said", "seconds"), [("", 2), ('deadline = "5ms"', 2), ('deadline = "3s"', 20), ('blame = "300ms"', 0.3)]
)
def test_a_process_has_a_budget_for_crashes_whatever_its_deadline(tmp_path: Path, said: str, seconds: float) -> None:
    """A crash costs a fork and not a deadline; what the card says holds all the same."""
    card = load(tmp_path, f'[model]\nisolation = "process"\n{said}\n{LEAST}')
    assert card.model.budget == pytest.approx(seconds)


def test_no_features_and_no_file(tmp_path: Path) -> None:
    """A card without features, and one that is not there, are refused."""
    with pytest.raises(Refused, match="features"):
        load(tmp_path, '[output]\nkind = "binary"\n')
    with pytest.raises(Refused, match="cannot be read"):
        load_card(tmp_path / "nowhere" / "card.toml")


def test_a_value_spelled_like_a_method(tmp_path: Path) -> None:
    """``impute = { value = "mean" }`` is the word itself, where ``"mean"`` would be the statistic."""
    card = load(tmp_path, LEAST.replace('"float"', '"string"\nimpute = { value = "mean" }'))
    assert card.features[0].impute is not None
    assert (card.features[0].impute.method, card.features[0].impute.value) == (Method.VALUE, "mean")


def test_unseen_categories_may_pass(tmp_path: Path) -> None:
    """With ``unseen = "pass"`` the model, not the card, judges an unseen category."""
    card = load(tmp_path, LEAST.replace('"float"', '"string"\ncategories = ["a"]\nunseen = "pass"'))
    assert card.specs == (Spec("x", FeatureType.STRING, None),)
