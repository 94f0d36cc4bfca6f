"""Small models as their makers export them: the same operators, names, types and shapes, with few weights.

Each is made with onnx.helper, so that tests need no exporter, and can compute the right answers in plain numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import Port, node, onnx_model, port

ML = "ai.onnx.ml"
TREE_COLUMNS = ("days_since_login", "income", "tenure", "tickets")
VOCABULARY = ("lost", "money", "parcel", "refund", "shop", "thanks")
TOPICS = ("billing", "delivery", "praise")


def weights(seed: int, *shape: int) -> NDArray[np.float32]:
    """Weights that are the same in each run, about 1 in size."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _leaf(tree: int, id: int) -> dict[str, Any]:
    return {"treeids": tree, "nodeids": id, "modes": "LEAF", "featureids": 0, "values": 0.0, "true": 0, "false": 0}


def _split(tree: int, id: int, feature: int, at: float, true: int, false: int, nan: int) -> dict[str, Any]:
    split = {"treeids": tree, "nodeids": id, "modes": "BRANCH_LEQ", "featureids": feature, "values": at}
    return split | {"true": true, "false": false, "nan": nan}


TREES = [
    _split(0, 0, 0, 20.0, 1, 2, nan=0),  # no login at all counts as a long time
    _leaf(0, 1),
    _leaf(0, 2),
    _split(1, 0, 1, 2500.0, 1, 2, nan=1),
    _leaf(1, 1),
    _split(1, 2, 3, 2.0, 3, 4, nan=0),
    _leaf(1, 3),
    _leaf(1, 4),
]
LEAVES = {(0, 1): -0.7, (0, 2): 0.9, (1, 1): 0.2, (1, 3): -0.4, (1, 4): 0.6}


def trees(zipmap: bool = False) -> onnx.ModelProto:
    """Two trees of a binary classifier that send NaN to one side, as LightGBM's and CatBoost's do.

    zipmap: as CatBoost exports it, whose only form of probabilities is a sequence of maps.
    """
    made = node(
        "TreeEnsembleClassifier",
        ["features" if zipmap else "input"],
        ["label", "probability_tensor" if zipmap else "probabilities"],
        domain=ML,
        post_transform="LOGISTIC",
        classlabels_int64s=[0, 1],
        class_treeids=[tree for tree, _ in LEAVES for _ in (0, 1)],
        class_nodeids=[leaf for _, leaf in LEAVES for _ in (0, 1)],
        class_ids=[0, 1] * len(LEAVES),
        class_weights=[w for weight in LEAVES.values() for w in (-weight, weight)],
        nodes_treeids=[n["treeids"] for n in TREES],
        nodes_nodeids=[n["nodeids"] for n in TREES],
        nodes_modes=[n["modes"] for n in TREES],
        nodes_featureids=[n["featureids"] for n in TREES],
        nodes_values=[n["values"] for n in TREES],
        nodes_truenodeids=[n["true"] for n in TREES],
        nodes_falsenodeids=[n["false"] for n in TREES],
        nodes_missing_value_tracks_true=[n.get("nan", 0) for n in TREES],
    )
    inputs: list[Port] = [("features" if zipmap else "input", "float", ["N", 4])]
    if not zipmap:
        return onnx_model(inputs, [("label", "int64", ["N"]), ("probabilities", "float", ["N", 2])], made)
    maps = node("ZipMap", ["probability_tensor"], ["probabilities"], domain=ML, classlabels_int64s=[0, 1])
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, number))
    outputs = [port("label", "int64", ["N"]), helper.make_value_info("probabilities", kind)]
    graph = helper.make_graph([made, maps], "churn", [port(*inputs[0])], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(ML, 2)], ir_version=3, producer_name="CatBoost")
    return model


def churn(*row: float | None) -> float:
    """The right answer of ``trees``: the probability of label 1."""
    days, income, _, tickets = (np.nan if v is None else np.float32(v) for v in row)
    total = -0.7 if days <= 20 else 0.9
    total += 0.2 if np.isnan(income) or income <= 2500 else -0.4 if tickets <= 2 else 0.6
    return float(1 / (1 + np.exp(-total)))


def linear(seed: int, columns: int, labels: Sequence[str] | Sequence[int] = (0, 1), name: str = "X") -> onnx.ModelProto:
    """A logistic regression over ``columns`` numbers as skl2onnx exports it, without zipmap."""
    w = weights(seed, columns).astype(float)
    text = isinstance(labels[0], str)
    classes: Mapping[str, Any] = {"classlabels_strings" if text else "classlabels_ints": list(labels)}
    made = node(
        "LinearClassifier",
        [name],
        ["label", "probability_tensor"],
        domain=ML,
        coefficients=[*(-w).tolist(), *w.tolist()],
        intercepts=[0.25, -0.25],
        multi_class=0,
        post_transform="LOGISTIC",
        **classes,
    )
    norm = node("Normalizer", ["probability_tensor"], ["probabilities"], domain=ML, norm="L1")
    outputs: list[Port] = [("label", "string" if text else "int64", ["N"]), ("probabilities", "float", ["N", 2])]
    return onnx_model([(name, "float", ["N", columns])], outputs, made, norm)


def linear_answer(seed: int, row: Sequence[float]) -> float:
    """The right answer of ``linear``: the probability of its second label."""
    logit = float(np.dot(weights(seed, len(row)).astype(float), np.asarray(row, np.float32).astype(float))) - 0.25
    return float(1 / (1 + np.exp(-logit)))


def outliers() -> onnx.ModelProto:
    """An anomaly model as scikit-learn has them: label -1 for an outlier, else 1, and LOW scores are anomalous.

    The score is 0.2 less a tenth of the mean square of three numbers.
    """
    return onnx_model(
        [("X", "float", ["N", 3])],
        [("label", "int64", ["N", 1]), ("scores", "float", ["N", 1])],
        node("Mul", ["X", "X"], ["square"]),
        node("ReduceMean", ["square", "columns"], ["mean"], keepdims=1),
        node("Mul", ["mean", "tenth"], ["part"]),
        node("Sub", ["most", "part"], ["scores"]),
        node("Less", ["scores", "zero"], ["outlier"]),
        node("Where", ["outlier", "minus", "plus"], ["label"]),
        constants={
            "columns": np.array([1]),
            "tenth": np.float32(0.1),
            "most": np.float32(0.2),
            "zero": np.float32(0),
            "minus": np.int64(-1),
            "plus": np.int64(1),
        },
    )


def logits(seed: int, out: int) -> onnx.ModelProto:
    """A net of two layers over five numbers as torch.onnx.export gives it: logits, no softmax."""
    return onnx_model(
        [("x", "float", ["batch", 5])],
        [("logits", "float", ["batch", out])],
        node("MatMul", ["x", "W1"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "W2"], ["logits"]),
        constants={"W1": weights(seed, 5, 16), "W2": weights(seed + 1, 16, out)},
    )


def logits_answer(seed: int, out: int, row: Sequence[float]) -> NDArray[np.float64]:
    """The right probabilities of ``logits``: a sigmoid for one column, a softmax for several."""
    hidden = np.maximum(np.asarray(row) @ weights(seed, 5, 16).astype(float), 0)
    z = hidden @ weights(seed + 1, 16, out).astype(float)
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-z)) if out == 1 else np.exp(z) / np.exp(z).sum()
    return probabilities


def passengers(blocks: bool) -> onnx.ModelProto:
    """A pipeline of an imputer, a scaler, one-hot encoders and a classifier, as skl2onnx exports it.

    blocks: two inputs of two columns each, ``num`` and ``cat``; otherwise one input a column, whose names are the data
    frame's with every other character an underscore.
    """
    first: list[onnx.NodeProto]
    if blocks:
        inputs: list[Port] = [("num", "float", ["N", 2]), ("cat", "string", ["N", 2])]
        first = [node("Gather", ["cat", f"at{i}"], [f"text{i}"], axis=1) for i in (0, 1)]
        numbers = "num"
    else:
        inputs = [("age__years_", "float", ["N", 1]), ("Fare__", "float", ["N", 1])]
        inputs += [("sex", "string", ["N", 1]), ("embarked", "string", ["N", 1])]
        first = [node("Concat", ["age__years_", "Fare__"], ["numbers"], axis=1)]
        numbers = "numbers"
    texts = ("text0", "text1") if blocks else ("sex", "embarked")
    return onnx_model(
        inputs,
        [("label", "int64", ["N"]), ("probabilities", "float", ["N", 2])],
        *first,
        node(
            "Imputer", [numbers], ["whole"], domain=ML, imputed_value_floats=[40.0, 30.0], replaced_value_float=np.nan
        ),
        node("Scaler", ["whole"], ["scaled"], domain=ML, offset=[40.0, 30.0], scale=[0.05, 0.02]),
        node("OneHotEncoder", [texts[0]], ["sexes"], domain=ML, cats_strings=["f", "m"], zeros=1),
        node("OneHotEncoder", [texts[1]], ["ports"], domain=ML, cats_strings=["C", "Q", "S"], zeros=1),
        node("Reshape", ["sexes", "two"], ["sexes2"]),
        node("Reshape", ["ports", "three"], ["ports2"]),
        node("Concat", ["scaled", "sexes2", "ports2"], ["columns"], axis=1),
        node(
            "LinearClassifier",
            ["columns"],
            ["label", "probabilities"],
            domain=ML,
            coefficients=[*(-w for w in PASSENGER), *PASSENGER],
            intercepts=[0.0, 0.0],
            post_transform="LOGISTIC",
            multi_class=0,
            classlabels_ints=[0, 1],
        ),
        constants={
            "two": np.array([-1, 2]),
            "three": np.array([-1, 3]),
            **({"at0": np.array([0]), "at1": np.array([1])} if blocks else {}),
        },
    )


PASSENGER = [-0.5, 1.0, 1.5, -1.5, 0.2, -0.3, 0.1]


def passenger(age: float | None, fare: float, sex: str, embarked: str) -> float:
    """The right answer of ``passengers``: a missing age is 40, an unknown port is no port."""
    columns = [((40.0 if age is None else age) - 40) * 0.05, (fare - 30) * 0.02]
    columns += [float(sex == s) for s in "fm"] + [float(embarked == p) for p in "CQS"]
    return float(1 / (1 + np.exp(-np.dot(columns, PASSENGER))))


def text_and_numbers() -> onnx.ModelProto:
    """Text ids [N, 16] beside numbers [N, 3]; one probability."""
    return onnx_model(
        [("input_ids", "int64", ["N", 16]), ("numeric", "float", ["N", 3])],
        [("probability", "float", ["N", 1])],
        node("Gather", ["E", "input_ids"], ["e"]),
        node("ReduceMean", ["e", "tokens"], ["p"], keepdims=0),
        node("Concat", ["p", "numeric"], ["c"], axis=1),
        node("MatMul", ["c", "W"], ["l"]),
        node("Sigmoid", ["l"], ["probability"]),
        constants={"E": weights(5, 100, 8), "W": weights(6, 11, 1), "tokens": np.array([1])},
    )


def text_and_numbers_answer(ids: Sequence[int], numeric: Sequence[float]) -> float:
    """The right answer of ``text_and_numbers``."""
    columns = np.concatenate([weights(5, 100, 8)[list(ids)].mean(0), numeric])
    return float(1 / (1 + np.exp(-(columns @ weights(6, 11, 1))[0])))


def window() -> onnx.ModelProto:
    """A window of 24 time steps of 3 sensors: one input [N, 24, 3], one regression."""
    return onnx_model(
        [("window", "float", ["N", 24, 3])],
        [("rul", "float", ["N", 1])],
        node("Flatten", ["window"], ["f"]),
        node("MatMul", ["f", "W"], ["rul"]),
        constants={"W": weights(7, 72, 1)},
    )


def texts(locale: str = "C") -> onnx.ModelProto:
    """Raw text in, one of three labels out: lower case, words, counts with weights, a softmax, as skl2onnx exports it.

    locale: of its StringNormalizer; skl2onnx writes none unless it is told, and the runtime then takes en_US.UTF-8.
    """
    given = {"locale": locale} if locale else {}
    steps = [
        node("Reshape", ["text", "all"], ["flat"]),
        node("StringNormalizer", ["flat"], ["lower"], case_change_action="LOWER", is_case_sensitive=0, **given),
        node(
            "Tokenizer",
            ["lower"],
            ["tokens"],
            domain="com.microsoft",
            mark=0,
            mincharnum=1,
            pad_value="#",
            tokenexp="[a-z]+",
        ),
        node("Flatten", ["tokens"], ["words"]),
        node(
            "TfIdfVectorizer",
            ["words"],
            ["counts"],
            max_gram_length=1,
            min_gram_length=1,
            max_skip_count=0,
            mode="TF",
            ngram_counts=[0],
            ngram_indexes=list(range(len(VOCABULARY))),
            pool_strings=list(VOCABULARY),
            weights=[1.0] * len(VOCABULARY),
        ),
        node(
            "LinearClassifier",
            ["counts"],
            ["label", "probabilities"],
            domain=ML,
            coefficients=weights(8, 3 * len(VOCABULARY)).tolist(),
            intercepts=[0.1, 0.3, -0.2],
            multi_class=1,
            post_transform="SOFTMAX",
            classlabels_strings=list(TOPICS),
        ),
    ]
    graph = helper.make_graph(
        steps,
        "texts",
        [port("text", "string", ["N", 1])],
        [port("label", "string", ["N"]), port("probabilities", "float", ["N", 3])],
        [numpy_helper.from_array(np.array([-1]), "all")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(ML, 1), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="skl2onnx")


def text_answer(words: Sequence[str]) -> NDArray[np.float64]:
    """The right probabilities of ``texts`` for a text of these words in lower case."""
    counts = np.array([words.count(word) for word in VOCABULARY], float)
    z = weights(8, 3 * len(VOCABULARY)).astype(float).reshape(3, -1) @ counts + [0.1, 0.3, -0.2]
    probabilities: NDArray[np.float64] = np.exp(z) / np.exp(z).sum()
    return probabilities


def arrival() -> onnx.ModelProto:
    """A double model of two numbers whose answer is an epoch second: the first plus 86,400 times the second."""
    return onnx_model(
        [("x", "double", ["N", 2])],
        [("eta", "double", ["N", 1])],
        node("MatMul", ["x", "W"], ["eta"]),
        constants={"W": np.array([[1.0], [86400.0]])},
    )


def total(columns: int = 2) -> onnx.ModelProto:
    """The sum of one matrix's columns."""
    return onnx_model(
        [("x", "float", ["N", columns])],
        [("y", "float", ["N", 1])],
        node("MatMul", ["x", "W"], ["y"]),
        constants={"W": np.ones((columns, 1), np.float32)},
    )


def order() -> onnx.ModelProto:
    """A float, an int, a bool and a string, each an input: amount + 10 items + 100 if a member + 1000 if from 01234."""
    return onnx_model(
        [
            ("amount", "float", ["N", 1]),
            ("items", "int64", ["N", 1]),
            ("member", "bool", ["N", 1]),
            ("zip", "string", ["N", 1]),
        ],
        [("sum", "float", ["N", 1])],
        node("Cast", ["items"], ["i"], to=TensorProto.FLOAT),
        node("Cast", ["member"], ["m"], to=TensorProto.FLOAT),
        node("OneHotEncoder", ["zip"], ["same"], domain=ML, cats_strings=["01234"], zeros=1),
        node("Reshape", ["same", "one"], ["z"]),
        node("Concat", ["amount", "i", "m", "z"], ["columns"], axis=1),
        node("MatMul", ["columns", "W"], ["sum"]),
        constants={"W": np.array([[1], [10], [100], [1000]], np.float32), "one": np.array([-1, 1])},
    )
