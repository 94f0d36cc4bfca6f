"""A hand-written loop for speed on confluent-kafka: librdkafka fetches and sends on threads outside of Python.

Like the hand-written aiokafka loop, it decodes, scores and answers in batches, at least once, and does nothing else.
"""

from __future__ import annotations

import argparse
import gc
import signal
from operator import itemgetter
from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.events import FEATURES

BATCH = 4_000
"""Records in a round, as in the aiokafka loop."""


def work(bootstrap: str, source: str, sink: str, group: str, model: Path) -> None:
    """Runs until SIGTERM. Raises KafkaException if an answer is not accepted."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    pick = itemgetter(*FEATURES)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "max.partition.fetch.bytes": 1_048_576,
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 16_384,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 5,  # librdkafka's own default; a flush sends at once
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 2 * BATCH,
        }
    )
    refused: list[str] = []

    def sent(error: object, _message: object) -> None:
        if error is not None:
            refused.append(str(error))

    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    consumer.subscribe([source])
    while not stopping:
        records = consumer.consume(BATCH, timeout=0.05)
        for record in records:
            if record.error() is not None:
                raise KafkaException(record.error())
        if not records:
            continue
        events = [orjson.loads(r.value()) for r in records]
        matrix = np.array([pick(e["features"]) for e in events], dtype=np.float32)
        scores = session.run(["probabilities"], {"features": matrix})[0][:, 1].tolist()
        after: dict[int, int] = {}
        for record, event, score in zip(records, events, scores, strict=True):
            partition = record.partition()
            value = orjson.dumps({"event_id": event["event_id"], "score": score})
            producer.produce(sink, value, record.key(), partition, on_delivery=sent)
            after[partition] = record.offset() + 1
        producer.flush()
        if refused:
            raise KafkaException(refused[0])
        consumer.commit(offsets=[TopicPartition(source, p, n) for p, n in after.items()], asynchronous=False)
    consumer.close()


def main() -> None:
    """Parses the command line, sets the garbage collector like the other hand-written loop, and runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "source", "sink", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", type=Path, required=True)
    given = parser.parse_args()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    work(given.bootstrap, given.source, given.sink, given.group, given.model)


if __name__ == "__main__":
    main()
