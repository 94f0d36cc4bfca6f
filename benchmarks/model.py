"""The model that every program serves: gradient boosting with 100 trees, and a fallback of equal cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.events import FEATURES, rows

PRIMARY = "scorer"
FALLBACK = "scorer-fallback"

TREES = 100
TRAINED_ON = 2_000
"""Rows; enough for trees of full depth, and trained in a second or two."""

_CARD = """\
[model]
isolation = "{isolation}"
deadline = "10s"    # long: the machine's other load must not make a healthy primary late
[output]
kind = "binary"
{features}
[fallback]
chain = [{chain}]
static = {{ score = 0.5, label = 0 }}
[breaker]
slow_call = "10s"
open_for = "{open_for}"
max_open = "{open_for}"
"""


def train(zipmap: bool = False) -> bytes:
    """The ONNX model: one float32 matrix ``features`` (n, 16) in, label (n) and probabilities (n, 2) out. ``zipmap``: n
    maps of probabilities by label instead, as scikit-learn's exporter does by default.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import GradientBoostingClassifier

    x = rows(TRAINED_ON)
    noise = np.random.default_rng(1).normal(0, 2, len(x))
    y = (x[:, 0] * x[:, 1] / 5 + x[:, 2] - x[:, 3] + noise > 5).astype(int)
    fitted = GradientBoostingClassifier(n_estimators=TREES, max_depth=3, random_state=0).fit(x, y)
    exported = to_onnx(
        fitted,
        initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
        options={"zipmap": zipmap},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    content: bytes = exported.SerializeToString()
    return content


def write(
    root: Path,
    open_for: str = "1h",
    isolation: str = "thread",
    content: bytes | None = None,
    features: str = "",
) -> Path:
    """Fills the repository at ``root`` and returns the path of the ONNX file, for programs that use no repository.

    ``open_for``: with an hour, a primary that is down stays down for a run, without probes. ``isolation`` is the
    primary's. ``content`` is the model, if it was trained already, and ``features`` its card's features if they
    are other ones.
    """
    content = train() if content is None else content
    features = features or "".join(f'[[features]]\nname = "{name}"\ntype = "float"\n' for name in FEATURES)
    for model, chain in ((PRIMARY, f'"model:{FALLBACK}", "static"'), (FALLBACK, '"static"')):
        folder = root / model / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(content)
        (root / model / "card.toml").write_text(
            _CARD.format(
                features=features,
                chain=chain,
                open_for=open_for,
                isolation=isolation if model == PRIMARY else "thread",
            )
        )
    return root / PRIMARY / "1" / "model.onnx"
