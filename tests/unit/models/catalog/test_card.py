"""Model cards: which keys a card.toml may have, and how mistakes are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.card import ModelCard, load_card
from failsoft.models.catalog.chain import Link, LinkKind
from failsoft.models.catalog.fields import Method
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.failure import Kind
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec

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


def test_a_feature_may_be_neither_required_nor_imputed(tmp_path: Path) -> None:
    """``required = false`` without ``impute`` is accepted; an event without the feature is invalid."""
    card = load(tmp_path, CARD.replace('impute = "median"', ""))
    assert (card.features[0].required, card.features[0].impute) == (False, None)
    made = impute(columns([{"salary_range": "0 - 20K €"}], card.specs), card, {})
    assert {row: failure.kind for row, failure in made.invalid.items()} == {0: Kind.INVALID}


def test_the_card_of_the_contract(tmp_path: Path) -> None:
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


def test_the_keys_of_process_isolation(tmp_path: Path) -> None:
    """The number of processes and their memory in bytes are read; the defaults are one process and no limit."""
    own = load(tmp_path, CARD.replace('"thread"', '"process"\nreplicas = 3\nmemory = "1.5GiB"')).model
    assert (own.isolation, own.replicas, own.memory) == ("process", 3, 1_610_612_736)
    plain = load(tmp_path, CARD.replace('"thread"', '"process"')).model
    assert (plain.replicas, plain.memory) == (1, None)


def test_the_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    """A card with only the required keys has the contract's values, and no fallback."""
    least, full = load(tmp_path, LEAST), load(tmp_path, CARD)
    assert least.fallback is None
    assert (least.model, least.breaker, least.rollback) == (full.model, full.breaker, full.rollback)
    assert (least.output.range, least.output.threshold, least.output.min_confidence) == ((0.0, 1.0), 0.5, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
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
        ("range = [0.0, 1.0]", 'classes = ["a", "b"]', "positive: missing, and nothing says whether a score is the"),
        ("range = [0.0, 1.0]", 'labels = ["a", "b", "c"]', "labels: 3 given, and a binary output has two"),
        ("range = [0.0, 1.0]", 'labels = ["a", "b"]\npositive = "A"', "positive: 'A' is not one of the labels"),
        ("range = [0.0, 1.0]", 'activation = "sigmod"', "is none of 'sigmoid', 'softmax' (did you mean 'sigmoid'?)"),
        ("range = [0.0, 1.0]", 'anomalous = "low"', "anomalous: only an anomaly output has this side"),
        ("range = [0.0, 1.0]", 'outputs = ["a", "b"]', "outputs: only a regression has several outputs"),
        ("min_confidence = 0.6", "min_confidence = 6", "output.min_confidence"),
        ('"median"', '"mdian"', "not a float (did you mean 'median'?)"),
        (
            '"median"',
            '"none"',
            '"none" is no way to impute: without imputation, leave impute out. It may be a value, "mean"',
        ),
        ('"median"', '"zero"', 'impute is \'zero\', which is not a float: it may be a value, "mean", "median", "mode"'),
        ("range = [0.0, 1.0]", "tolerance = 0", "output.tolerance"),
        ('"median"', "true", "impute is True, which is not a float"),
        ('"median"', "nan", 'impute is nan, which is not a float: write impute = "nan", in quotes'),
        ('"median"', "1e999", "impute is inf, which is not a float"),
        ('"median"', '{ method = "median" }', 'a table has only the key "value": write impute = "median"'),
        ('"median"', '{ method = "median", value = 3.0 }', 'write impute = "median", or only the value'),
        (
            '"median"',
            '{ method = "value", value = 3.0 }',
            'it may be a value, "mean", "median", "mode", "nan", or',
        ),
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
        ("label = 0", "label = 0.5", "fallback.static.label: 0.5: it may be a whole number or text"),
        ('"median"', "{ value = [1] }", "features[0].impute.value: [1]: it may be a number, text, true or false"),
        ("required = false", "required = false\nmode = [1]", "features[0].mode: [1]: it may be a number, text, true"),
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
def test_a_mistake_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """The refusal names the file, the key, the allowed values and the nearest spelling, if there is one."""
    assert old in CARD
    with pytest.raises(Refused) as refused:
        load(tmp_path, CARD.replace(old, new))
    assert message in str(refused.value)
    assert refused.value.file.endswith("card.toml")


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [("", 2), ('deadline = "50ms"', 0.5), ('deadline = "3s"', 20), ('deadline = "1m"', 60), ('blame = "700ms"', 0.7)],
)
def test_the_bisect_budget_is_ten_deadlines_within_bounds(tmp_path: Path, keys: str, seconds: float) -> None:
    """The default budget is at least the deadline and at most what a lane may take; the card may set it."""
    assert load(tmp_path, f"[model]\n{keys}\n{LEAST}").model.budget == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("keys", "seconds"), [("", 2), ('deadline = "5ms"', 2), ('deadline = "3s"', 20), ('blame = "300ms"', 0.3)]
)
def test_a_process_has_a_budget_for_crashes_whatever_its_deadline(tmp_path: Path, keys: str, seconds: float) -> None:
    """With process isolation the default budget is at least 2 s, since a crash costs a fork."""
    card = load(tmp_path, f'[model]\nisolation = "process"\n{keys}\n{LEAST}')
    assert card.model.budget == pytest.approx(seconds)


def test_a_card_without_features_or_file_is_refused(tmp_path: Path) -> None:
    """A card without features, and a missing file, are refused."""
    with pytest.raises(Refused, match="features"):
        load(tmp_path, '[output]\nkind = "binary"\n')
    with pytest.raises(Refused, match="cannot be read"):
        load_card(tmp_path / "nowhere" / "card.toml")


def test_a_value_spelled_like_a_method(tmp_path: Path) -> None:
    """``impute = { value = "mean" }`` is the word ``mean``; ``impute = "mean"`` is the statistic."""
    card = load(tmp_path, LEAST.replace('"float"', '"string"\nimpute = { value = "mean" }'))
    assert card.features[0].impute is not None
    assert (card.features[0].impute.method, card.features[0].impute.value) == (Method.VALUE, "mean")


def test_unseen_categories_may_pass(tmp_path: Path) -> None:
    """With ``unseen = "pass"`` an unseen category goes to the model."""
    card = load(tmp_path, LEAST.replace('"float"', '"string"\ncategories = ["a"]\nunseen = "pass"'))
    assert card.specs == (Spec("x", FeatureType.STRING, None),)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('type = "tensor"\nshape = [3]', "dtype: missing, and a tensor needs it"),
        ('type = "tensor"\ndtype = "float32"', "shape: missing, and a tensor needs it"),
        ('type = "tensor"\ndtype = "flaot32"\nshape = [3]', "(did you mean 'float32'?)"),
        ('type = "tensor"\ndtype = "int8"\nshape = [-1, -1]', "at most one is -1"),
        ('type = "tensor"\ndtype = "int8"\nshape = [0]', "each dimension is at least 1"),
        ('type = "tensor"\ndtype = "int8"\nshape = [1, 1, 1, 1, 1]', "it may have 1 to 4"),
        ('type = "tensor"\ndtype = "int8"\nshape = [10000, 10000]', "it may have 10000000"),
        ('type = "tensor"\ndtype = "int8"\nshape = [3]\nmask = "m"', "mask: only with a -1 in shape"),
        ('type = "tensor"\ndtype = "int8"\nshape = [-1]\npad = 128', "pad: 128 is not a int8 element"),
        ('type = "tensor"\ndtype = "int8"\nshape = [-1]\nimpute = 1', "one value for all elements of a fixed shape"),
        ('type = "tensor"\ndtype = "int8"\nshape = [3]\nimpute = "nan"', "only a float or a tensor of floats"),
        ('type = "float"\nshape = [3]', "shape: only a tensor has it, not a float"),
        ('type = "int"\nimpute = "nan"', "only a float or a tensor of floats with a fixed shape can be NaN, not a int"),
        ('type = "string"\nminimum = 0', "minimum: only a number has bounds, not a string"),
        ('type = "float"\nminimum = 2\nmaximum = 1', "minimum: 2 is over the maximum of 1"),
        ('type = "float"\nfield = "b"\n[[features]]\nname = "b"\ntype = "int"', "'a' and 'b' both read the field 'b'"),
    ],
)
def test_a_feature_that_does_not_fit_itself_is_refused(tmp_path: Path, keys: str, message: str) -> None:
    """Tensors, bounds and paths: the message names the feature, the key and what would be right."""
    path = tmp_path / "card.toml"
    path.write_text(f'[output]\nkind = "regression"\n[[features]]\nname = "a"\n{keys}\n', "utf-8")
    with pytest.raises(Refused, match=re.escape(message)):
        load_card(path)


def test_a_tensors_spec_has_its_defaults(tmp_path: Path) -> None:
    """A length that differs has a bound, and is padded with nothing."""
    path = tmp_path / "card.toml"
    path.write_text(
        '[output]\nkind = "regression"\n[[features]]\nname = "ids"\ntype = "tensor"\ndtype = "int64"\nshape = [-1, 2]\n'
    )
    assert load_card(path).specs[0].tensor == TensorSpec(DType.INT64, (-1, 2), 512)
