"""The output of a new card: what it is for the values that a model gives for made-up rows."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest

from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.vetting.observation import ObservedPort
from failsoft.workers.operations.card_output import Output, Outputs, output_of

FLOAT, LABEL, TEXT, MAPS = "tensor(float)", "tensor(int64)", "tensor(string)", "seq(map(int64,tensor(float)))"
RANDOM = np.random.default_rng(7)
LOGITS = RANDOM.normal(size=(32, 4)) * 9
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
TWO = np.stack([1 - SOFTMAX[:, 0], SOFTMAX[:, 0]], axis=1)
SIGMOID = SOFTMAX[:, :1]
FRAUD = ("fraud", "legit")


def model(values: dict[str, Any], types: dict[str, str] | None = None, **known: Any) -> Outputs:
    """A model with these outputs; those that have no type are of floats."""
    ports = []
    for name, value in values.items():
        kind = (types or {}).get(name, FLOAT)
        shape = () if isinstance(value, list) else (None, *value.shape[1:])
        ports.append(ObservedPort(name, kind, shape))
    return Outputs(ports, values, **known)


def section(output: Output) -> OutputSection:
    """The card's section."""
    return OutputSection.model_validate(tomllib.loads(f'kind = "{output.kind}"\n' + "\n".join(output.lines)))


def test_probabilities_are_known_by_their_sum() -> None:
    """Two columns are binary, and more are multiclass with the model's own labels. A classifier is no guess."""
    label = {"label": np.zeros(32, np.int64), "p": TWO}
    two = output_of(model(label, {"label": LABEL}, labels=(0, 1)))
    assert (two.kind, two.lines, two.static, two.notes) == ("binary", [], "{ score = 0.5, label = 0 }", [])
    own = ("billing", "delivery", "praise", "other")
    many = output_of(model({"label": np.full(32, "billing", object), "p": SOFTMAX}, {"label": TEXT}, labels=own))
    assert many.kind == "multiclass" and section(many).labels == own and not many.notes
    net = output_of(model({"out": SOFTMAX}, metadata={"class_names": "a,b,c,d"}))
    assert net.kind == "multiclass" and section(net).labels == ("a", "b", "c", "d") and "if it is not" in net.notes[0]


def test_one_column_within_0_and_1_is_a_probability() -> None:
    """That of a net with a sigmoid. One that always gave the same may be anything."""
    net = output_of(model({"probability": SIGMOID}))
    assert net.kind == "binary" and "[0, 1]" in net.notes[0]
    assert output_of(model({"y": np.zeros((32, 1))})).kind == "regression"
    assert output_of(model({"y": SIGMOID}, ops=frozenset({"TreeEnsembleRegressor"}))).kind == "regression"
    assert output_of(model({"variable": SIGMOID}, tabular=True)).kind == "regression"


@pytest.mark.parametrize(
    ("values", "kind", "activation"),
    [
        ({"logits": LOGITS[:, :1]}, "binary", "sigmoid"),
        ({"logits": LOGITS[:, :2]}, "binary", "softmax"),
        ({"logits": LOGITS}, "multiclass", "softmax"),
        ({"output": LOGITS}, "multiclass", "softmax"),
        ({"output": np.hstack([-LOGITS[:, :1], LOGITS[:, :1]])}, "binary", "sigmoid"),
    ],
)
def test_logits_get_an_activation(values: dict[str, Any], kind: str, activation: str) -> None:
    """The note says what was found, and what to write if they are none."""
    output = output_of(model(values))
    assert (output.kind, section(output).activation) == (kind, activation)
    assert "they are logits" in output.notes[0] and 'kind = "regression"' in output.notes[0]


def test_numbers_without_bounds_are_a_regression() -> None:
    """Several columns get names for the card's `outputs`; the note says the way out for logits."""
    one = output_of(model({"price": LOGITS[:, :1]}))
    assert one.kind == "regression" and 'activation = "sigmoid"' in one.notes[0]
    for given in (model({"variable": LOGITS[:, :2]}, tabular=True), model({"prediction": LOGITS[:, :2]})):
        two = output_of(given)
        (name,) = given.values
        assert two.kind == "regression" and section(two).outputs == (f"{name}_1", f"{name}_2")


def test_probabilities_each_by_itself_are_multilabel() -> None:
    """They are within [0, 1] and do not sum to 1."""
    output = output_of(model({"p": RANDOM.random((32, 3))}, metadata={"labels": '["a", "b", "c"]'}))
    assert output.kind == "multilabel" and section(output).labels == ("a", "b", "c")


def test_a_label_output_that_marks_columns_is_multilabel() -> None:
    """scikit-learn's nets and one-versus-rest models: 1 for each label whose probability is over a half."""
    table = RANDOM.random((32, 3))
    values = {"label": (table > 0.5).astype(np.int64), "probabilities": table}
    for known in ({"tabular": True}, {"ops": frozenset({"LinearClassifier"})}):
        output = output_of(model(values, {"label": LABEL}, **known))
        assert (output.kind, output.lines, output.notes) == ("multilabel", [], [])


def test_an_output_for_each_label_is_refused() -> None:
    """skl2onnx's zipmap="columns": the message has the outputs, and the option that gives one."""
    values = {f"s{name}": SOFTMAX[:, i] for i, name in enumerate("abcd")}
    with pytest.raises(ValueError, match=r"'sa', 'sb', 'sc', 'sd'.*zipmap.*False"):
        output_of(model(values, labels=tuple("abcd")))


def test_a_sequence_of_tensors_is_multilabel() -> None:
    """scikit-learn's form: a tensor for each label. Its own labels are 0 and 1 for each, and are not carried."""
    ports = [ObservedPort("label", LABEL, (None, 2)), ObservedPort("p", "seq(tensor(float))", ())]
    output = output_of(Outputs(ports, {"label": np.zeros((32, 2), np.int64)}, (0, 1)))
    assert (output.kind, output.lines, output.notes) == ("multilabel", [], [])


def test_distances_to_clusters_are_no_logits() -> None:
    """The label of a cluster is the column with the lowest number."""
    values = {"label": np.abs(LOGITS).argmin(axis=1), "scores": np.abs(LOGITS)}
    output = output_of(model(values, {"label": LABEL}, tabular=True))
    assert output.kind == "regression" and section(output).carry == ("label",) and "distances" in output.notes[0]


def test_a_positive_label_that_nobody_said_is_asked_for() -> None:
    """The card has both choices as comments, and is refused until one is said."""
    fraud = model({"label": np.full(32, "legit", object), "p": TWO}, {"label": TEXT}, labels=FRAUD)
    asked = output_of(fraud)
    assert [line for line in asked.lines if "positive" in line] == ['# positive = "fraud"', '# positive = "legit"']
    with pytest.raises(ValueError, match='add positive = "fraud" or positive = "legit"'):
        section(asked)
    assert "--positive" in asked.notes[-1]
    said = output_of(fraud, "fraud")
    assert (section(said).labels, section(said).positive) == (FRAUD, "fraud")
    assert (asked.static, said.static) == ("{ score = 0.5 }", '{ score = 0.5, label = "legit" }')
    with pytest.raises(ValueError, match="'x' is none of the model's labels: it may be fraud or legit"):
        output_of(fraud, "x")
    with pytest.raises(ValueError, match="only a binary one has a positive label"):
        output_of(model({"y": LOGITS[:, :1]}), "1")
    numbers = output_of(model({"p": TWO}, labels=(1, 2)), "2")
    assert section(numbers).positive == 2


def test_maps_have_their_labels_as_keys() -> None:
    """A ZipMap's keys are the model's own labels."""
    rows = [{0: float(1 - p), 1: float(p)} for p in SIGMOID[:, 0]]
    assert output_of(model({"label": np.zeros(32, np.int64), "p": rows}, {"label": LABEL, "p": MAPS})).kind == "binary"
    texts = [dict(zip("abcd", row.tolist(), strict=True)) for row in SOFTMAX]
    assert section(output_of(model({"p": texts}, {"p": MAPS}))).labels == ("a", "b", "c", "d")


@pytest.mark.parametrize("sign", [1, -1])
def test_the_side_of_an_anomaly_is_that_of_its_own_label(sign: int) -> None:
    """-1 is an outlier. The threshold is 0 where the sign of the score decides."""
    scores = sign * LOGITS[:, :1]
    label = np.where(LOGITS[:, :1] < 0, -1, 1)
    output = output_of(model({"label": label, "scores": scores}, {"label": LABEL}))
    made = section(output)
    assert (made.kind, made.anomalous, made.threshold) == ("anomaly", "low" if sign == 1 else "high", 0.0)


def test_another_threshold_of_an_anomaly_is_a_guess() -> None:
    """It separates the labels of the made-up rows."""
    scores = np.linspace(1, 5, 32)[:, None]
    output = output_of(model({"label": np.where(scores > 3, -1, 1), "scores": scores}, {"label": LABEL}))
    made = section(output)
    assert made.anomalous == "high" and made.threshold == pytest.approx(3, abs=0.1) and "guess" in output.notes[-1]


def test_further_outputs_are_carried() -> None:
    """The spread of a forecast, the ids of the best few; large ones only as a comment."""
    spread = section(output_of(model({"std": LOGITS[:, :1], "mean": LOGITS[:, 1:2]})))
    assert (spread.kind, spread.output, spread.carry) == ("regression", "mean", ("std",))
    ids = output_of(model({"scores": SOFTMAX[:, :3], "ids": np.zeros((32, 3), np.int64)}, {"ids": LABEL}))
    assert ids.kind == "regression" and section(ids).carry == ("ids",)
    wide = output_of(model({"p": SIGMOID, "embedding": RANDOM.normal(size=(32, 384))}))
    assert section(wide).carry == () and any(line.startswith('# carry = ["embedding"]') for line in wide.lines)


def test_a_model_that_did_not_run_is_judged_by_its_shape() -> None:
    """The note says that its scores are not known."""
    p = ObservedPort("p", FLOAT, (None, 2))
    output = output_of(Outputs([ObservedPort("label", LABEL, (None,)), p]))
    assert output.kind == "binary" and "did not run" in output.notes[0]
    assert output_of(Outputs([ObservedPort("y", FLOAT, (None, 1))])).kind == "regression"


def test_a_model_without_scores_is_refused() -> None:
    """The message lists the outputs."""
    label, boxes = ObservedPort("label", LABEL, (None,)), ObservedPort("boxes", FLOAT, (None, 10, 4))
    with pytest.raises(ValueError, match="'boxes': tensor"):
        output_of(Outputs([label, boxes]))


def test_a_confidence_is_no_probability_of_one_label() -> None:
    """The highest probability and its class: as a binary score it would call every row the positive one."""
    for table in (SOFTMAX, TWO):
        best = {"top": table.max(axis=1, keepdims=True), "which": table.argmax(axis=1)}
        found = output_of(model(best, {"which": LABEL}))
        assert found.kind == "regression" and 'carry = ["which"]' in found.lines[-1]
        assert "confidence in a class" in found.notes[0]


def test_the_only_output_of_0_and_1_is_the_label_whatever_its_name() -> None:
    """It is not carried along, so that it is held against the card. Another number is."""
    given = {"out": SIGMOID, "output_0": (SIGMOID[:, 0] > 0.5).astype(np.int64)}
    assert output_of(model(given, {"output_0": LABEL})).lines == []
    several = {"out": SIGMOID, "a": given["output_0"], "b": given["output_0"]}
    assert 'carry = ["a", "b"]' in output_of(model(several, {"a": LABEL, "b": LABEL})).lines[-1]


def test_texts_beside_decision_values_are_labels() -> None:
    """An SVC without probabilities: its two columns are a margin, with text labels or with turned numbers."""
    margin = np.stack([LOGITS[:, 0], -LOGITS[:, 0]], axis=1)
    texts = np.where(LOGITS[:, 0] > 0, "fraud", "legit").astype(object)
    known = {"labels": FRAUD, "tabular": True, "ops": frozenset({"SVMClassifier"})}
    found = output_of(model({"label": texts, "probabilities": margin}, {"label": TEXT}, **known), "fraud")
    assert found.kind == "binary" and section(found).activation == "sigmoid"
    turned = {"label": (margin[:, 0] > 0).astype(np.int64), "probabilities": margin}
    svc = output_of(model(turned, {"label": LABEL}, **{**known, "labels": (0, 1)}))
    assert svc.kind == "regression" and "probability=True" in svc.notes[0]
