"""Makes the example of docs/multimodal.md: an ensemble of a text model, an image model and a table model.

The models are small nets with random weights, because the example is about their inputs, their cards, and what happens
when one of them fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SEED = 11
VOCABULARY, WIDTH, EMBEDDING = 1000, 8, 64

PIPELINE = """\
name = "{name}"
model = "claim"

[kafka]
bootstrap_servers = "{bootstrap}"

[input]
topics = ["{name}.events"]
partitions = {partitions}
id = "event_id"
time = "occurred_at"
features = "claim"

[retry]
delays = ["5s", "1m"]

[models]
repository = "models"
"""

CARDS = {
    "claim": """\
[model]
kind = "ensemble"

[output]
kind = "binary"

[ensemble]
combine = "weighted_mean"
quorum = 2

[[ensemble.members]]
model = "claim-text"
weight = 2.0
[[ensemble.members]]
model = "claim-image"
[[ensemble.members]]
model = "claim-table"

[fallback]
chain = ["static"]
static = { score = 0.5, label = 0 }
""",
    "claim-text": """\
[model]
deadline = "500ms"

[output]
kind = "binary"
activation = "softmax"                # the net gives two logits

[[features]]
name = "input_ids"
type = "tensor"
field = "text.token_ids"
dtype = "int64"
shape = [-1]                          # as many as the text has tokens
max_length = 128
truncate = true
mask = "attention_mask"               # the input that tells tokens from padding
""",
    "claim-image": """\
[model]
deadline = "500ms"

[output]
kind = "binary"                       # one column that is a probability

[[features]]
name = "photo"
type = "tensor"
field = "photo.embedding"
dtype = "float32"
shape = [64]                          # a list, or base64 of 256 bytes
""",
    "claim-table": """\
[model]
deadline = "500ms"

[output]
kind = "binary"
activation = "sigmoid"                # one logit

[[features]]
name = "amount"
type = "float"
input = "numeric"                     # column 1 of the input "numeric"
minimum = 0.0

[[features]]
name = "vehicle_age"
type = "float"
input = "numeric"
impute = 7.0

[[features]]
name = "earlier_claims"
type = "float"
input = "numeric"
impute = 0.0
""",
}


def weights(model: str) -> dict[str, NDArray[np.float32]]:
    """The weights of a model, by name."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "claim-text": {"E": (VOCABULARY, WIDTH), "W": (WIDTH, 2)},
        "claim-image": {"W": (EMBEDDING, 1)},
        "claim-table": {"W": (3, 1)},
    }
    draw = np.random.default_rng(SEED)
    drawn = {m: {name: draw.normal(size=s) for name, s in of.items()} for m, of in shapes.items()}
    drawn["claim-table"]["W"] *= [[0.0002], [0.1], [0.5]]  # amounts are in thousands
    return {name: array.astype(np.float32) for name, array in drawn[model].items()}


def text() -> onnx.ModelProto:
    """Token ids [N, L] and a mask [N, L]; the mean of the tokens' embeddings gives two logits [N, 2]."""
    node = helper.make_node
    steps = [
        node("Gather", ["E", "input_ids"], ["e"]),  # an id outside the vocabulary raises
        node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["m", "last"], ["m1"]),
        node("Mul", ["e", "m1"], ["there"]),
        node("ReduceSum", ["there", "tokens"], ["sum"], keepdims=0),
        node("ReduceSum", ["m", "tokens"], ["count"], keepdims=1),
        node("Max", ["count", "one"], ["least"]),  # a text without tokens is the mean of none
        node("Div", ["sum", "least"], ["mean"]),
        node("MatMul", ["mean", "W"], ["logits"]),
    ]
    ids = [("input_ids", TensorProto.INT64, ["N", "L"]), ("attention_mask", TensorProto.INT64, ["N", "L"])]
    constants = {"last": np.array([2]), "tokens": np.array([1]), "one": np.float32(1)}
    return _model("claim-text", steps, ids, ("logits", 2), constants)


def image() -> onnx.ModelProto:
    """An embedding [N, 64] of a photo, made by a net upstream; one probability [N, 1]."""
    steps = [helper.make_node("MatMul", ["photo", "W"], ["l"]), helper.make_node("Sigmoid", ["l"], ["probability"])]
    return _model("claim-image", steps, [("photo", TensorProto.FLOAT, ["N", EMBEDDING])], ("probability", 1))


def table() -> onnx.ModelProto:
    """Three numbers [N, 3]; one logit [N, 1]."""
    steps = [helper.make_node("MatMul", ["numeric", "W"], ["logit"])]
    return _model("claim-table", steps, [("numeric", TensorProto.FLOAT, ["N", 3])], ("logit", 1))


MODELS = {"claim-text": text, "claim-image": image, "claim-table": table}


def _model(
    name: str,
    steps: list[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[str | int]]],
    output: tuple[str, int],
    constants: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in {**weights(name), **(constants or {})}.items()]
    ports = [helper.make_tensor_value_info(n, kind, shape) for n, kind, shape in inputs]
    answer = helper.make_tensor_value_info(output[0], TensorProto.FLOAT, ["N", output[1]])
    graph = helper.make_graph(steps, name, ports, [answer], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def events() -> list[dict[str, Any]]:
    """A claim that all members read; one with a token that the text model does not know; one without a photo; and one
    with only its numbers, which are less than a quorum.
    """
    photo = np.random.default_rng(SEED + 1).normal(size=EMBEDDING).round(3).tolist()
    whole: dict[str, Any] = {
        "text": {"token_ids": [17, 404, 23, 8]},
        "photo": {"embedding": photo},
        "amount": 4200.0,
        "vehicle_age": 3.0,
    }
    claims = {
        "whole": whole,
        "unknown-token": whole | {"text": {"token_ids": [17, VOCABULARY + 42, 23]}},
        "no-photo": whole | {"photo": None, "text": {"token_ids": [5, 6]}},
        "numbers-only": {"amount": 900.0},
    }
    return [{"event_id": id, "occurred_at": "2026-01-01T12:00:00Z", "claim": claim} for id, claim in claims.items()]


def write(folder: Path, name: str = "claims", bootstrap: str = "127.0.0.1:9092", partitions: int = 4) -> None:
    """Writes the pipeline file, the repository and events.ndjson to ``folder``."""
    for model, card in CARDS.items():
        at = folder / "models" / model
        at.mkdir(parents=True)
        (at / "card.toml").write_text(card)
    for model, make in MODELS.items():
        version = folder / "models" / model / "1"
        version.mkdir()
        (version / "model.onnx").write_bytes(make().SerializeToString())
    (folder / "pipeline.toml").write_text(PIPELINE.format(name=name, bootstrap=bootstrap, partitions=partitions))
    (folder / "events.ndjson").write_text("".join(json.dumps(event) + "\n" for event in events()))


def main(arguments: list[str] | None = None) -> int:
    """Writes the example. Returns exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="python -m failsoft.models.training.claims claims")
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka's address")
    options = parser.parse_args(arguments)
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"{options.folder} is not empty")
    write(options.folder, bootstrap=options.bootstrap)
    print(f"wrote {options.folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
