"""A FastStream batch subscriber: a list of events in, one inference, one published batch for each partition.

It is tuned as its documentation suggests: batches in and out, its own decoder for the whole batch, orjson, no type
validation, no log line for each batch, uvloop. Offsets are committed after the handler, so it is at least once.
"""

from __future__ import annotations

import argparse
import asyncio
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage, KafkaPublishMessage

from benchmarks.events import FEATURES

BATCH = 4_000
"""Records in a call, as in the hand-written loops."""


def build(bootstrap: str, source: str, sink: str, group: str, model: Path) -> FastStream:
    """The app with its one subscriber."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    pick = itemgetter(*FEATURES)
    broker = KafkaBroker(bootstrap, logger=None, apply_types=False, max_batch_size=1_000_000, linger_ms=0)

    async def decode(message: KafkaMessage) -> list[Any]:
        return [orjson.loads(raw) for raw in message.body]

    @broker.subscriber(
        source,
        group_id=group,
        batch=True,
        max_records=BATCH,
        batch_timeout_ms=50,
        fetch_max_wait_ms=50,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=decode,
        no_reply=True,
    )
    async def answer(events: list[dict[str, Any]]) -> None:
        records = broker.context.get_local("message").raw_message
        matrix = np.array([pick(e["features"]) for e in events], dtype=np.float32)
        scores = session.run(["probabilities"], {"features": matrix})[0][:, 1].tolist()
        out: dict[int, list[KafkaPublishMessage]] = {}
        for record, event, score in zip(records, events, scores, strict=True):
            body = orjson.dumps({"event_id": event["event_id"], "score": score})
            out.setdefault(record.partition, []).append(KafkaPublishMessage(body, key=record.key))
        await asyncio.gather(*(broker.publish_batch(*messages, topic=sink, partition=p) for p, messages in out.items()))

    return FastStream(broker, logger=None)


def main() -> None:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "source", "sink", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", type=Path, required=True)
    given = parser.parse_args()

    async def work() -> None:
        await build(given.bootstrap, given.source, given.sink, given.group, given.model).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


if __name__ == "__main__":
    main()
