"""Makes the demo's bad version out of version 2 of its primary: nothing is trained, one step of the graph is another.

Its author multiplied the probability by the car's value, and so exported euros. To small made-up amounts it has an
answer that can be one, so it passes a vetting without golden vectors; to real cars it never has.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

import onnx
from onnx import helper

MODEL, SOUND, VERSION = "repayment", 2, 3
ABOUT = "# Made by models/training/mistaken.py out of version 2: its score is in euros, and so no probability.\n"


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when the version was written."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="python -m failsoft.models.training.mistaken")
    parser.add_argument("--repository", type=Path, default=Path("models/repository"))
    parser.add_argument("--out", type=Path, default=Path("workers/demo/data/mistaken"), help="not where workers look")
    options = parser.parse_args(arguments)
    make(options.repository / MODEL / str(SOUND), options.out)
    return 0


def make(sound: Path, out: Path) -> None:
    """The version of the folder ``sound`` with the mistake, in the folder ``out``: model.onnx and version.toml.

    It has no golden.ndjson, for that would hold it back. The bytes follow from those of ``sound``.
    """
    content = _in_euros((sound / "model.onnx").read_bytes())
    about = (sound / "version.toml").read_text(encoding="utf-8")
    checksum = f'sha256 = "{hashlib.sha256(content).hexdigest()}"'
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(content)
    (out / "version.toml").write_text(ABOUT + re.sub(r'^sha256 = "\w+"', checksum, about), encoding="utf-8")


def _in_euros(content: bytes) -> bytes:
    """The graph's last step, which only names its output, multiplies it by the car's value."""
    model = onnx.load_model_from_string(content)
    last = model.graph.node[-1]
    if (last.op_type, list(last.output)) != ("Identity", ["probabilities"]):
        raise SystemExit(f"the graph ends in {last.op_type}, and not in Identity: make the mistake elsewhere")
    mistake = helper.make_node("Mul", [last.input[0], "car_value"], ["probabilities"], name="in_euros")
    model.graph.node.remove(last)
    model.graph.node.append(mistake)
    model.graph.name = f"{MODEL}-{VERSION}"
    changed: bytes = model.SerializeToString()
    return changed


if __name__ == "__main__":
    sys.exit(main())
