"""A plain Faust agent as in Faust's tutorial: an event in, one inference, one send."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import faust
import mode.loop
import numpy as np
import onnxruntime as ort

from benchmarks.events import FEATURES

mode.loop.use("uvloop")


def build(bootstrap: str, source: str, sink: str, group: str, model: Path) -> faust.App:
    """The app; ``group`` is its consumer group and client id."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    app = faust.App(
        group,
        broker=f"kafka://{bootstrap}",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        datadir=tempfile.mkdtemp(prefix="failsoft-faust-", dir=model.parent),
    )
    answers = app.topic(sink, value_serializer="json")

    @app.agent(app.topic(source, key_type=bytes, value_serializer="json"))  # type: ignore[untyped-decorator]
    async def answer(stream: Any) -> None:
        async for key, event in stream.items():
            row = np.array([[event["features"][name] for name in FEATURES]], dtype=np.float32)
            score = float(session.run(["probabilities"], {"features": row})[0][0, 1])
            await answers.send(key=key, value={"event_id": event["event_id"], "score": score})

    return app


def main() -> None:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "source", "sink", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", type=Path, required=True)
    given = parser.parse_args()
    app = build(given.bootstrap, given.source, given.sink, given.group, given.model)
    faust.Worker(app, loglevel="warn", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
