"""A Quix Streams application as in its documentation: an event in, one inference, an answer out.

The library cannot pass a batch to a function and send the answers on: ``apply`` is called for each event. Its own
serializers, which are orjson, decode and encode JSON.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from quixstreams import Application

from benchmarks.events import FEATURES


def main() -> None:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "source", "sink", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--exactly-once", action="store_true")
    given = parser.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(given.model.read_bytes(), options, providers=["CPUExecutionProvider"])

    def answer(event: dict[str, Any]) -> dict[str, Any]:
        features = event["features"]
        row = np.array([[features[name] for name in FEATURES]], dtype=np.float32)
        score = float(session.run(["probabilities"], {"features": row})[0][0, 1])
        return {"event_id": event["event_id"], "score": score}

    app = Application(
        broker_address=given.bootstrap,
        consumer_group=given.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        processing_guarantee="exactly-once" if given.exactly_once else "at-least-once",
        # The default is 5 s: a run of seconds would end before its offsets are committed. A commit a second costs
        # little.
        commit_interval=1.0,
        producer_extra_config={"linger.ms": 20, "batch.size": 1_000_000},
        state_dir=tempfile.mkdtemp(prefix="failsoft-quix-", dir=given.model.parent),
        loglevel=logging.WARNING,
    )
    source = app.topic(given.source, key_deserializer="bytes", value_deserializer="json")
    sink = app.topic(given.sink, key_serializer="bytes", value_serializer="json")
    app.dataframe(source).apply(answer).to_topic(sink)
    app.run()


if __name__ == "__main__":
    main()
