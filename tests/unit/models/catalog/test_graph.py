"""What an ONNX file says of itself, compared with what the onnx package reads, and on damaged bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from failsoft.models.catalog.graph import MOST_FIELDS, MOST_NESTED, GraphFacts, facts
from tests.onnx_models import node, onnx_model, same

ML = "ai.onnx.ml"


def classifier(op: str = "LinearClassifier", **labels: Sequence[Any]) -> onnx.NodeProto:
    outputs = ["own_label", "scores"]
    return node(op, ["x"], outputs, domain=ML, coefficients=[1.0, 2.0], intercepts=[0.0], **labels)


def of_nodes(*nodes: onnx.NodeProto, constants: Any = None) -> onnx.ModelProto:
    return onnx_model(
        [("x", "float", ["n", 2])],
        [("label", "int64", ["n"]), ("probabilities", "float", ["n", 2])],
        *nodes,
        constants=constants,
    )


def chosen(classes: Any) -> onnx.ModelProto:
    """The label as scikit-learn's converter computes it: an element of the classes."""
    return of_nodes(
        node("ArgMax", ["x"], ["best"], axis=1),
        node("ArrayFeatureExtractor", ["classes", "best"], ["picked"], domain=ML),
        node("Cast", ["picked"], ["label"], to=TensorProto.INT64),
        constants={"classes": classes},
    )


NAMED = [
    node("Cast", ["own_label"], ["label"], to=TensorProto.INT64),
    node("Normalizer", ["scores"], ["probabilities"], domain=ML, norm="L1"),
]
MAP = node("ZipMap", ["scores"], ["probabilities"], domain=ML, classlabels_strings=["b", "a"])


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (of_nodes(classifier(classlabels_ints=[0, 1]), *NAMED), (0, 1)),
        (of_nodes(classifier("TreeEnsembleClassifier", classlabels_int64s=[-1, 2**40]), *NAMED), (-1, 2**40)),
        (of_nodes(classifier("SVMClassifier", classlabels_strings=["no", "é"]), *NAMED), ("no", "é")),
        (of_nodes(classifier(classlabels_strings=["a" * 40, "", "b"]), *NAMED), ("a" * 40, "", "b")),
        (of_nodes(classifier(classlabels_ints=[0, 1]), MAP), ("b", "a")),
        (chosen(np.array([3, -7], np.int32)), (3, -7)),
        (chosen(np.array([b"x", b"y"], object)), ("x", "y")),
        (chosen(np.array([0.5, 1.5], np.float32)), None),
        (chosen(np.array([4, 4])), None),
        (of_nodes(classifier(classlabels_ints=[0, 1]), node("Neg", ["own_label"], ["label"])), None),
        (same(), None),
    ],
)
def test_labels_are_those_of_the_models_outputs(model: onnx.ModelProto, labels: tuple[int | str, ...] | None) -> None:
    """They are found behind renamed and scaled outputs, and not behind arithmetic that changes them."""
    assert facts(model.SerializeToString()).labels == labels


def test_the_label_that_the_model_gives_precedes_those_of_an_inner_classifier() -> None:
    """A stacking classifier numbers its classes, and looks their names up."""
    model = of_nodes(
        classifier(classlabels_ints=[0, 1]),
        node("ArrayFeatureExtractor", ["classes", "own_label"], ["label"], domain=ML),
        node("Identity", ["scores"], ["probabilities"]),
        constants={"classes": np.array([b"no", b"yes"], object)},
    )
    assert facts(model.SerializeToString()).labels == ("no", "yes")


def test_it_says_what_the_onnx_package_says() -> None:
    """Producer, versions, metadata, operators and locales, in subgraphs and functions too."""
    inner = helper.make_graph(
        [node("StringNormalizer", ["s"], ["t"], case_change_action="LOWER", locale="fr_FR.UTF-8")], "inner", [], []
    )
    default = node("StringNormalizer", ["s"], ["u"], case_change_action="UPPER")
    model = of_nodes(node("If", ["c"], ["v"], then_branch=inner, else_branch=inner))
    function = helper.make_function("own", "F", ["s"], ["u"], [default], [helper.make_opsetid("", 18)])
    model.functions.append(function)
    model.producer_name, model.producer_version, model.doc_string = "skl2onnx", "1.20", "of loans"
    helper.set_model_props(model, {"columns": '["é"]'})
    found = facts(model.SerializeToString())
    assert (found.producer, found.producer_version, found.doc, found.ir_version) == ("skl2onnx", "1.20", "of loans", 10)
    assert found.opsets == {"": 18, ML: 3} and found.metadata == {"columns": '["é"]'} and not found.damaged
    assert found.ops == {"If", "StringNormalizer"} and set(found.locales) == {"fr_FR.UTF-8", "en_US.UTF-8"}


def test_weights_in_other_files_are_found_wherever_a_tensor_may_be() -> None:
    """Initializers, attributes, sparse tensors and subgraphs; a tensor that only has such an entry is not one."""

    def outside(location: str) -> TensorProto:
        tensor = numpy_helper.from_array(np.zeros(3, np.float32), location)
        external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        return tensor

    sparse = onnx.SparseTensorProto(values=outside("d"), indices=outside("e"), dims=[9])
    inside = outside("none")
    inside.data_location = TensorProto.DEFAULT
    body = helper.make_graph([node("Constant", [], ["k"], value=outside("c"))], "body", [], [], [outside("b")])
    model = of_nodes(node("If", ["x"], ["y"], then_branch=body))
    model.graph.initializer.extend([outside("a"), inside])
    model.graph.sparse_initializer.append(sparse)
    assert sorted(facts(model.SerializeToString()).external) == ["a", "b", "c", "d", "e"]


def test_a_million_tree_nodes_are_skipped_in_a_moment() -> None:
    """Their numbers are not packed: each has a tag of its own."""
    modes = ["LEAF", "BRANCH_LEQ"] * 500_000
    many = {"nodes_values": [0.5] * 1_000_000, "nodes_featureids": [1] * 1_000_000, "nodes_modes": modes}
    trees = node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, **many)
    raw = of_nodes(trees).SerializeToString()
    began = time.process_time()
    assert facts(raw).ops == {"TreeEnsembleRegressor"}
    assert time.process_time() - began < 1


def test_fields_are_bounded() -> None:
    """Millions of empty fields would take a worker's time before a vetting can stop them."""
    began = time.process_time()
    assert facts(b"\x7a\x00" * 4_000_000).damaged == f"more than {MOST_FIELDS} fields"
    assert time.process_time() - began < 10


def test_depth_is_bounded() -> None:
    """A message in a message in a message: an error that names the bound, not Python's recursion limit."""
    raw = b""
    for tag in (b"\x32", b"\x2a", b"\x0a") * 5000:  # a graph of a node with an attribute that is a graph of ...
        raw = tag + _size(len(raw)) + raw
    assert facts(b"\x3a" + _size(len(raw)) + raw).damaged == f"nested deeper than {MOST_NESTED}"


def _size(n: int) -> bytes:
    """As a varint."""
    digits = bytearray()
    while n >= 0x80:
        digits.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*digits, n])


@pytest.mark.parametrize(
    ("raw", "damaged"),
    [
        (b"", ""),
        (b"not a model", "wire type 6"),
        (b"\x3a\x05ab", "5 bytes announced at byte 2, and 2 are left"),
        (b"\x08" + b"\xff" * 11, "a number does not end"),
        (b"\x08", "a number does not end"),
        (b"\x00\x00", "a field without a number"),
        (b"\x0d123", "a number is cut off"),
    ],
)
def test_damaged_bytes_are_said_and_not_raised(raw: bytes, damaged: str) -> None:
    """ONNX Runtime decides whether bytes are a model; these facts stay empty, and say why."""
    found = facts(raw)
    assert found.damaged.startswith(damaged) and bool(found.damaged) == bool(damaged)
    assert found == GraphFacts(damaged=found.damaged)


WHOLE = of_nodes(classifier(classlabels_strings=["no", "yes"]), MAP).SerializeToString()


@given(st.data())
@example(None)
def test_mutated_bytes_give_facts_and_never_raise(data: Any) -> None:
    """Bytes cut off, replaced and repeated: an answer each time, and the same as the onnx package's where it reads."""
    raw = bytearray(WHOLE)
    if data is not None:
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, max(0, len(raw) - 1)))
            raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    found = facts(bytes(raw))
    try:
        read = onnx.ModelProto.FromString(bytes(raw))
    except DecodeError:
        return
    if not found.damaged:
        assert found.ir_version == read.ir_version
        # protobuf gives text that is not UTF-8 as bytes
        ops = [
            op.decode("utf-8", "replace") if isinstance(op := each.op_type, bytes) else op for each in read.graph.node
        ]
        assert set(ops) == found.ops
