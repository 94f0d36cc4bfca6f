"""Makes the demo's bad version from version 2 of its primary by replacing one node of the graph, without training.

The mistake is that the probability is multiplied by the square of the car's value and divided by it again, in half
precision, whose largest number is 65,504. The square of a real car's value is infinite there, and the score is NaN. For
the small values that vetting makes up, the score is right, so the version passes a vetting without golden vectors.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

MODEL, SOUND, VERSION = "repayment", 2, 3
ABOUT = "# Made by models/training/mistaken.py out of version 2: for the value of a real car its score is NaN.\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes the bad version. Returns exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="python -m failsoft.models.training.mistaken")
    parser.add_argument("--repository", type=Path, default=Path("models/repository"))
    parser.add_argument("--out", type=Path, default=Path("workers/demo/data/mistaken"), help="workers do not read it")
    options = parser.parse_args(arguments)
    make(options.repository / MODEL / str(SOUND), options.out)
    return 0


def make(sound: Path, out: Path) -> None:
    """Writes model.onnx and version.toml to ``out``: the version in folder ``sound`` with the mistake added.

    It has no golden.ndjson, because golden vectors would stop it in vetting. The bytes depend only on those of
    ``sound``.
    """
    content = _in_half_precision((sound / "model.onnx").read_bytes())
    about = (sound / "version.toml").read_text(encoding="utf-8")
    checksum = f'sha256 = "{hashlib.sha256(content).hexdigest()}"'
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(content)
    (out / "version.toml").write_text(ABOUT + re.sub(r'^sha256 = "\w+"', checksum, about), encoding="utf-8")


def _in_half_precision(content: bytes) -> bytes:
    """Replaces the graph's last node, an Identity that names the output, by a multiplication with (v² + 1) / (v² + 1),
    where v is the car's value.

    Raises SystemExit if the graph does not end in that Identity.
    """
    model = onnx.load_model_from_string(content)
    last = model.graph.node[-1]
    if (last.op_type, list(last.output)) != ("Identity", ["probabilities"]):
        raise SystemExit(f"the graph ends in {last.op_type}, not in Identity: add the mistake at another node")
    model.graph.node.remove(last)
    model.graph.node.extend(
        [
            helper.make_node("Mul", ["car_value", "car_value"], ["square"]),
            helper.make_node("Cast", ["square"], ["half"], to=onnx.TensorProto.FLOAT16, name="the_mistake"),
            helper.make_node("Cast", ["half"], ["rounded"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Add", ["rounded", "one"], ["weight"]),
            helper.make_node("Div", ["weight", "weight"], ["share"]),
            helper.make_node("Mul", [last.input[0], "share"], ["probabilities"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    model.graph.name = f"{MODEL}-{VERSION}"
    changed: bytes = model.SerializeToString()
    return changed


if __name__ == "__main__":
    sys.exit(main())
