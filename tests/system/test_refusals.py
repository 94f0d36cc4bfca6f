"""A worker refuses to start where it would break the promise: exit code 1, and each problem by topic and key."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.integration.pipeline import Pipeline, running
from tests.kafka import Broker, create_topic


def _set(bootstrap: str, topic: str, key: str, value: str) -> None:
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})  # a variable: its requests are dropped once it is collected
    admin.incremental_alter_configs([resource])[resource].result(timeout=30)


def test_a_worker_refuses_topics_that_break_the_promise(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A worker exits 1 and names every wrong setting: a compacted rung, short or size-based retention, a small size
    limit.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    wrong = [
        (f"{name}.retry.1s", "cleanup.policy", "compact"),
        (f"{name}.retry.2s", "retention.ms", "3000"),
        (f"{name}.dead", "retention.ms", "60000"),
        (f"{name}.replay", "retention.bytes", "1000000"),
        (f"{name}.scored", "max.message.bytes", "1000"),
    ]
    with running(pipeline):
        for topic, key, value in wrong:
            _set(kafka.bootstrap, topic, key, value)
        done = pipeline.run("worker")
    stderr = done.stderr.decode()
    assert done.returncode == 1, stderr
    for topic, key, _ in wrong:
        assert any(topic in line and key in line for line in stderr.splitlines()), (topic, key, stderr)
    assert "Traceback" not in stderr


def test_inputs_of_unequal_partition_counts_are_refused(kafka: Broker, name: str, tmp_path: Path) -> None:
    """``topics apply`` names an input with another partition count, and the command that mends it. A worker runs the
    lanes that it can (tests/integration/test_topology.py).
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline):
        create_topic(kafka.bootstrap, f"{name}.more", 3)
        pipeline.inputs = [*pipeline.inputs, f"{name}.more"]
        pipeline.write()
        applied = pipeline.run("topics", "apply")
    stderr = applied.stderr.decode()
    assert applied.returncode == 1, stderr
    assert f"{name}.more: has 3 partitions" in stderr and "failsoft topics apply --grow 4" in stderr, stderr


def test_a_worker_refuses_to_start_without_its_topics(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Without ``topics apply`` the worker exits 1, and names the missing topics and the command to run."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    done = pipeline.run("worker")
    stderr = done.stderr.decode()
    assert done.returncode == 1, stderr
    for topic in (f"{name}.events", f"{name}.scored", f"{name}.retry.1s", f"{name}.retry.2s", f"{name}.dead"):
        assert topic in stderr
    assert "failsoft topics apply" in stderr


def test_a_second_worker_of_one_id_is_refused(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A second worker with an id in use exits 2, and the first goes on; they would evict each other for ever."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    with running(pipeline):
        worker = pipeline.start("w0")
        worker.wait_ready()
        done = pipeline.run("worker", "--id", "w0")
        assert done.returncode == 2 and "w0" in done.stderr.decode(), done.stderr.decode()
        assert worker.drain() == 0, worker.tail()
