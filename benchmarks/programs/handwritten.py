"""A hand-written loop for speed: aiokafka, orjson, numpy, one ONNX batch, at least once.

It only decodes, scores and answers, without validation, handling of model failures or metrics. Fetch sizes, linger,
batch limit, event loop and garbage collector are set as in failsoft, so that only the work differs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import signal
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks import encoded
from benchmarks.events import FEATURES

Decode = Callable[[Sequence[bytes]], tuple[list[str], Any]]
"""Gives the ids and the features of some events: a row of numbers each."""

BATCH = 4_000
"""Records in a round, of all partitions together; larger rounds gained nothing."""


def decode_json(pick: Callable[[Any], Any]) -> Decode:
    """For JSON. ``pick`` takes the numbers out of an event's features."""

    def decode(values: Sequence[bytes]) -> tuple[list[str], Any]:
        events = [orjson.loads(value) for value in values]
        return [e["event_id"] for e in events], [pick(e["features"]) for e in events]

    return decode


def decode_avro() -> Decode:
    """For Avro by fastavro, with the one schema that all events have."""
    from fastavro import parse_schema, schemaless_reader

    schema, skip, pick = parse_schema(encoded.AVRO_SCHEMA), len(encoded.framing(encoded.AVRO)), itemgetter(*FEATURES)

    def decode(values: Sequence[bytes]) -> tuple[list[str], Any]:
        events: list[Any] = [schemaless_reader(io.BytesIO(value[skip:]), schema, None) for value in values]
        return [e["event_id"] for e in events], [pick(e["features"]) for e in events]

    return decode


def decode_protobuf() -> Decode:
    """For Protobuf by google.protobuf, with the one message that all events have."""
    parse, skip = encoded.event_class().FromString, len(encoded.framing(encoded.PROTOBUF))
    pick = attrgetter(*FEATURES)

    def decode(values: Sequence[bytes]) -> tuple[list[str], Any]:
        events = [parse(value[skip:]) for value in values]
        return [e.event_id for e in events], [pick(e.features) for e in events]

    return decode


async def work(bootstrap: str, source: str, sink: str, group: str, model: Path, isolation: str, decode: Decode) -> None:
    """Runs until SIGTERM."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation,
        max_partition_fetch_bytes=1_048_576,
        fetch_max_wait_ms=50,
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=0, max_batch_size=1_000_000)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    await consumer.start()
    await producer.start()

    def infer(matrix: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = session.run(["probabilities"], {port.name: matrix})[0]
        return probabilities

    while not stopping.is_set():
        found = await consumer.getmany(timeout_ms=500, max_records=BATCH)
        records = [r for each in found.values() for r in each]
        if not records:
            continue
        ids, rows = decode([r.value for r in records])
        matrix = np.array(rows, dtype=np.float32)
        scores = (await loop.run_in_executor(None, infer, matrix))[:, 1].tolist()
        futures = []
        row = 0
        for tp, of_partition in found.items():
            batch = producer.create_batch()
            for record in of_partition:
                value = orjson.dumps({"event_id": ids[row], "score": scores[row]})
                row += 1
                if batch.append(key=record.key, value=value, timestamp=None) is None:
                    batch.close()
                    futures.append(await producer.send_batch(batch, sink, partition=tp.partition))
                    batch = producer.create_batch()
                    batch.append(key=record.key, value=value, timestamp=None)
            batch.close()
            futures.append(await producer.send_batch(batch, sink, partition=tp.partition))
        await asyncio.gather(*futures)
        await consumer.commit(
            {TopicPartition(tp.topic, tp.partition): each[-1].offset + 1 for tp, each in found.items()}
        )
    await producer.stop()
    await consumer.stop()


def main() -> None:
    """Parses the command line and runs on uvloop."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "source", "sink", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--default-gc", action="store_true", help="leave the garbage collector as Python sets it")
    parser.add_argument("--vector", metavar="FEATURE", help="the numbers are a list in this one feature")
    parser.add_argument("--format", choices=("json", encoded.AVRO, encoded.PROTOBUF), default="json")
    parser.add_argument("--read-committed", action="store_true", help="leave out events of open transactions")
    given = parser.parse_args()
    if not given.default_gc:
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)  # failsoft.workers.process.serve.GC_THRESHOLD
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        isolation = "read_committed" if given.read_committed else "read_uncommitted"
        if given.format == "json":
            decode = decode_json(itemgetter(*FEATURES) if given.vector is None else itemgetter(given.vector))
        else:
            decode = decode_avro() if given.format == encoded.AVRO else decode_protobuf()
        runner.run(work(given.bootstrap, given.source, given.sink, given.group, given.model, isolation, decode))


if __name__ == "__main__":
    main()
