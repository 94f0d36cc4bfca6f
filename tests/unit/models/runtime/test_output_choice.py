"""Which output is the answer: the refusals of outputs that cannot be it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.signature import Mismatch
from failsoft.schemas.failure import Failure
from tests.output_ports import Out, label, reader, scores, table

AB = {"a": "float", "b": "float"}
ABC = {**AB, "c": "float"}


@pytest.mark.parametrize(
    ("output", "ports", "words"),
    [
        (
            {},
            [scores(1), scores(8, name="q"), scores(3, "double", "r")],
            ["'p' (tensor(float), ?×1)", "'r' (tensor(double), ?×3)", 'output = "p"', 'carry = ["q", "r"]'],
        ),
        ({}, [label()], ["no output is a float tensor ('label' (tensor(int64), ?))", "scores or probabilities"]),
        (
            {"output": "label"},
            [label(), scores()],
            ["'label' (tensor(int64), ?) holds no scores", "'p' (tensor"],
        ),
        ({}, [Out("y", "tensor(float)", ("n", 1, 2))], ["3 dimensions, n×1×2", "without the dimensions of 1"]),
        ({}, [Out("y", "tensor(float)", ("n", 9, 2))], ["3 dimensions, n×9×2", "one step or position", "carry"]),
        (
            {"kind": "multiclass"},
            [Out("ids", "tensor(int64)", ("n", 5)), scores(5)],
            ["top-k", 'kind = "regression", outputs = ["score_1", "score_2", …] and carry = ["ids"]', '"multilabel"'],
        ),
        (
            {},
            [Out("label", "tensor(int64)", ("n", 2)), scores(2)],
            ["if each column is a label of its own"],
        ),
        ({"kind": "regression"}, [scores(3)], ["3 columns", 'outputs = ["…", "…", "…"]']),
        ({"kind": "regression", "outputs": ["a", "b"]}, [scores(3)], ["the card's outputs name 2"]),
        ({"kind": "multiclass"}, [scores(1)], ['one column is kind = "binary"']),
        ({}, [scores(3)], ['kind = "multiclass", or "multilabel"']),
        ({"kind": "anomaly"}, [scores(2)], ["2 columns, not those of an anomaly output"]),
        ({"activation": "softmax"}, [scores(1)], ['write activation = "sigmoid"']),
        ({"carry": ["sdt"]}, [scores(), scores(1, name="std")], ["carry: 'sdt'", "did you mean 'std'"]),
        ({"carry": ["p"]}, [scores()], ["all float outputs are in carry"]),
        ({"carry": ["s"]}, [scores(), Out("s", "seq(tensor(string))", ())], ["carry: 's' (seq(tensor(string)))"]),
        ({"kind": "multilabel", "carry": ["labels"]}, [scores(), label()._replace(name="labels")], ["rename"]),
        ({"kind": "multiclass"}, [Out("s", "seq(tensor(float))", ())], ['write kind = "multilabel"']),
    ],
)
def test_an_output_that_cannot_be_the_answer_is_refused(
    output: dict[str, Any], ports: list[Out], words: list[str]
) -> None:
    """The message names the output with its type and shape, and what would be right."""
    with pytest.raises(Mismatch) as refused:
        reader({"kind": "binary", **output}, ports)
    assert [word for word in words if word not in str(refused.value)] == [], str(refused.value)


def test_top_k_can_be_answered_as_the_refusal_says() -> None:
    """The best of a list: its highest score is the answer's, and the ids are carried."""
    ports = [Out("ids", "tensor(int64)", ("n", 2)), scores(2)]
    card = {"kind": "regression", "outputs": ["score_1", "score_2"], "carry": ["ids"]}
    found = reader(card, ports).read([table([9, 7]), np.array([[41, 3]])], 1)
    assert isinstance(found, ModelOutput)
    assert found.predictions.row(0).outputs == {"score_1": 9, "score_2": 7, "ids": [41, 3]}
    json.dumps(found.predictions.row(0).outputs)


def test_several_regressions_may_be_declared_as_one_column() -> None:
    """skl2onnx declares [N, 1] for trees that give several numbers. Their names count, and the runs are checked."""
    both = reader({"kind": "regression", "outputs": ["a", "b"]}, [scores(1)])
    found = both.read([table([1.5, 2.5])], 1)
    assert isinstance(found, ModelOutput) and found.predictions.row(0).outputs == {"a": 1.5, "b": 2.5}
    failure = both.read([table([1.5])], 1)
    assert isinstance(failure, Failure) and "the card's outputs name 2" in failure.message


def test_an_output_without_a_batchs_dimension_fails() -> None:
    """An output that has the same size for any number of rows fails the batch, and says what it needs."""
    for tensor in (np.float32(0.5), table([0.5, 0.5])[0]):
        failure = reader({"kind": "binary"}, [Out("y", "tensor(float)", ())]).read([tensor], 1)
        assert isinstance(failure, Failure) and "first dimension must be that of the batch" in failure.message
